//! The command `herm keys`.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use herm_app::keys::{self, NewKey};
use herm_config::load_from_machine;
use herm_crypto::{ApiKey, KeyKind};
use herm_store::Store;
use herm_types::Rng;
use herm_types::time::{Clock as _, SystemClock, SystemRng};
use serde_json::json;

use crate::args::{CreateKey, Keys, KeysCommand, ListKeys, RevokeKey, StateLocation};
use crate::open::{self, Access};

pub(crate) async fn run(keys: Keys) -> anyhow::Result<()> {
    match keys.command {
        KeysCommand::Create(create_key) => create(create_key).await,
        KeysCommand::List(list_keys) => list(list_keys).await,
        KeysCommand::Revoke(revoke_key) => revoke(revoke_key).await,
        KeysCommand::Generate(generate_key) => {
            generate(generate_key.json);
            Ok(())
        }
    }
}

/// Opens the store without exclusive access, because a server may be using it at the same time.
async fn store(location: &StateLocation) -> anyhow::Result<Store> {
    let config = load_from_machine(&location.flags(None))?;
    open::store(&config, Access { exclusive: false, migrate: false }).await
}

#[expect(clippy::print_stdout, reason = "a command prints its result")]
async fn create(create: CreateKey) -> anyhow::Result<()> {
    let store = store(&create.location).await?;
    let rng: Arc<dyn Rng> = Arc::new(SystemRng);
    let new = NewKey {
        name: create.name,
        account: create.account,
        scopes: create.scopes,
        deployment_id: create.deployment,
        customer_id: create.customer,
        expires_at: create.expires.map(|ms| SystemClock.now().plus_ms(ms)),
    };
    let (key, info) = keys::create(&store, &open::id_source(), rng.as_ref(), new)
        .await
        .context("failed to create the key")?;
    if create.json {
        let mut shown = serde_json::to_value(&info)?;
        if let Some(fields) = shown.as_object_mut() {
            fields.insert("key".to_owned(), key.expose().into());
        }
        println!("{shown}");
    } else {
        println!("{}", key.expose());
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a command prints its result")]
async fn list(list: ListKeys) -> anyhow::Result<()> {
    let found = keys::list(&store(&list.location).await?).await.context("failed to list the keys")?;
    if list.json {
        println!("{}", json!({"data": found}));
        return Ok(());
    }
    let now = SystemClock.now();
    for key in found {
        let state = if key.is_live(now) { "live" } else { "dead" };
        let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
        println!("{}  {state}  {}  {}  {}", key.key_id, key.created_at, scopes.join(","), key.name);
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a command prints its result")]
async fn revoke(revoke: RevokeKey) -> anyhow::Result<()> {
    let key_id = revoke.key_id;
    let revoked =
        keys::revoke(&store(&revoke.location).await?, key_id).await.context("failed to revoke the key")?;
    if !revoked {
        bail!("key {key_id} does not exist; herm keys list shows all keys");
    }
    if revoke.json {
        println!("{}", json!({"key_id": key_id, "revoked": true}));
    } else {
        println!("revoked {key_id}");
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a command prints its result")]
fn generate(as_json: bool) {
    let key = ApiKey::generate(KeyKind::Secret, &mut |bytes: &mut [u8]| SystemRng.fill(bytes));
    if as_json {
        println!("{}", json!({"key": key.expose()}));
    } else {
        println!("{}", key.expose());
    }
}
