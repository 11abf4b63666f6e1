//! The command `herm doctor`. It reports the state of everything that a server needs on this machine, and
//! changes nothing.

mod engines;
mod storage;

use anyhow::bail;
use herm_config::{Config, load_from_machine};
use serde::Serialize;

use crate::args::Doctor;
use engines::{EngineReport, engines};

/// The result of checking one prerequisite for running a server.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    works: bool,
    /// A description of the state that the check has found.
    found: String,
    /// Instructions to fix the problem. `None` if the check has passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Check {
    fn works(name: &str, found: String) -> Self {
        Self { name: name.to_owned(), works: true, found, advice: None }
    }

    fn fails(name: &str, found: String, advice: String) -> Self {
        Self { name: name.to_owned(), works: false, found, advice: Some(advice) }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    /// True if a server can run on this machine.
    works: bool,
    data_directory: Check,
    database: Check,
    master_key: Check,
    /// One check per model provider. A failed check prevents a server from running only if it is the check of
    /// the default model's provider.
    providers: Vec<Check>,
    /// One report per sandbox engine. A server can run if at least one engine works for deployments with
    /// default settings.
    engines: Vec<EngineReport>,
    /// The names of the failed checks that prevent a server from running.
    #[serde(rename = "faults")]
    failed_checks: Vec<String>,
}

#[expect(clippy::print_stdout, reason = "a command prints its result")]
pub(crate) async fn run(doctor: Doctor) -> anyhow::Result<()> {
    let config = load_from_machine(&doctor.location.flags(None))?;
    let report = report(&config).await;
    if doctor.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    if !report.works {
        bail!(
            "a server cannot run on this machine: {}; see the advice above",
            report.failed_checks.join(", ")
        );
    }
    Ok(())
}

async fn report(config: &Config) -> Report {
    let data_directory = storage::data_directory(&config.server.data_dir);
    let database = storage::database(&config.database).await;
    let master_key = storage::master_key(config).await;
    let providers = providers(config);
    let engines = engines(config).await;
    let mut failed_checks: Vec<String> = [&data_directory, &database, &master_key]
        .into_iter()
        .filter(|check| !check.works)
        .map(|check| check.name.clone())
        .collect();
    let default = &config.models.default_model.provider;
    let lacks_key = providers.iter().any(|check| check.name == *default && !check.works);
    failed_checks.extend(lacks_key.then(|| format!("the default model's provider {default}")));
    failed_checks.extend(engines::error(config, &engines));
    Report {
        works: failed_checks.is_empty(),
        data_directory,
        database,
        master_key,
        providers,
        engines,
        failed_checks,
    }
}

/// Checks the configuration of each model provider, without a call to the provider.
fn providers(config: &Config) -> Vec<Check> {
    let configured = config.models.providers.iter();
    configured
        .map(|provider| match &provider.api_key_env {
            Some(variable) if !provider.has_key() => Check::fails(
                &provider.name,
                format!("{} at {}, without a key", provider.kind.as_str(), provider.base_url),
                format!("set {variable}; without it, runs that use this provider fail with provider_not_configured"),
            ),
            _ => {
                let key = if provider.api_key.is_some() { "with its key" } else { "which needs no key" };
                let found = format!("{} at {}, {key}", provider.kind.as_str(), provider.base_url);
                Check::works(&provider.name, found)
            }
        })
        .collect()
}

#[expect(clippy::print_stdout, reason = "a command prints its result")]
fn print(report: &Report) {
    let line = |works: bool, name: &str, found: &str, advice: Option<&str>| {
        println!("{} {name:<15} {found}", if works { "ok     " } else { "missing" });
        if let Some(advice) = advice {
            println!("                        → {advice}");
        }
    };
    for check in [&report.data_directory, &report.database, &report.master_key] {
        line(check.works, &check.name, &check.found, check.advice.as_deref());
    }
    println!("\nproviders");
    for check in &report.providers {
        line(check.works, &check.name, &check.found, check.advice.as_deref());
    }
    println!("\nsandbox engines");
    for engine in &report.engines {
        let found = engine.reason.as_deref().unwrap_or(match engine.own_users {
            Some(true) => "available; each sandbox has its own operating system user",
            _ => "available; sandboxes share the server's user: run the server as root to give each its own",
        });
        line(engine.works, engine.name, found, engine.advice.as_deref());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use herm_config::Flags;

    use super::*;

    fn config(dir: &Path, variables: &[(&str, &str)]) -> Config {
        let mut env: BTreeMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        env.insert("HERM_DATA_DIR".to_owned(), dir.join("data").to_string_lossy().into_owned());
        Config::load(&Flags::default(), &env, None).unwrap()
    }

    #[tokio::test]
    async fn failed_checks_are_named_and_nothing_is_created() {
        let dir = tempfile::tempdir().unwrap();
        let found = report(&config(dir.path(), &[])).await;
        assert!(!found.works);
        assert!(
            found.failed_checks.iter().any(|error| error.contains("anthropic")),
            "{:?}",
            found.failed_checks
        );
        let anthropic = found.providers.iter().find(|check| check.name == "anthropic").unwrap();
        assert!(anthropic.advice.as_ref().unwrap().contains("ANTHROPIC_API_KEY"));
        assert!(found.data_directory.works && found.database.works, "{found:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_key_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let found = report(&config(dir.path(), &[("ANTHROPIC_API_KEY", "sk-ant-Zq8fP2mW")])).await;
        let text = serde_json::to_string(&found).unwrap();
        assert!(text.contains("with its key") && !text.contains("Zq8fP2mW"), "{text}");
        assert!(
            !found.failed_checks.iter().any(|error| error.contains("provider")),
            "{:?}",
            found.failed_checks
        );
    }

    #[tokio::test]
    async fn an_invalid_database_or_directory_fails_with_advice() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("herm.sqlite3"), "x".repeat(5000)).unwrap();
        let corrupt = report(&config(dir.path(), &[])).await;
        assert!(!corrupt.database.works && corrupt.database.advice.is_some(), "{corrupt:?}");
        assert!(corrupt.failed_checks.contains(&"database".to_owned()));
        std::fs::remove_dir_all(&data).unwrap();
        std::fs::write(&data, "a file").unwrap();
        let a_file = report(&config(dir.path(), &[])).await;
        assert!(!a_file.data_directory.works && a_file.data_directory.advice.is_some(), "{a_file:?}");
        let unreachable =
            config(dir.path(), &[("HERM_DATABASE_URL", "postgres://u:s3cret@127.0.0.1:1/herm")]);
        let unreachable = report(&unreachable).await;
        assert!(
            !unreachable.database.works && !format!("{unreachable:?}").contains("s3cret"),
            "{unreachable:?}"
        );
    }
}
