//! The command `herm migrate`.

use herm_config::load_from_machine;

use crate::args::StateLocation;
use crate::open::{self, Access};

#[expect(clippy::print_stdout, reason = "a command prints its result")]
pub(crate) async fn run(location: &StateLocation) -> anyhow::Result<()> {
    let config = load_from_machine(&location.flags(None))?;
    open::store(&config, Access { exclusive: false, migrate: true }).await?;
    println!("the database has schema version {}", herm_store::SCHEMA_VERSION);
    Ok(())
}
