//! `herm migrate`.

use herm_config::load_from_machine;

use crate::args::Place;
use crate::open::{self, Access};

#[expect(clippy::print_stdout, reason = "a command says what it did")]
pub(crate) async fn run(place: &Place) -> anyhow::Result<()> {
    let config = load_from_machine(&place.flags(None))?;
    open::store(&config, Access { exclusive: false, migrate: true }).await?;
    println!("the database has schema version {}", herm_store::SCHEMA_VERSION);
    Ok(())
}
