//! `herm doctor`: what this machine offers, and what is missing. It changes nothing.

mod engines;
mod places;

use anyhow::bail;
use herm_config::{Config, load_from_machine};
use serde::Serialize;

use crate::args::Doctor;
use engines::{EngineReport, engines};

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    works: bool,
    /// What was found.
    found: String,
    /// What to do, where it does not work.
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
    /// Whether a server can do its work here.
    works: bool,
    data_directory: Check,
    database: Check,
    master_key: Check,
    /// Some of them may be without a key; the one of the default model may not.
    providers: Vec<Check>,
    /// Some of them may be missing; the one that deployments get by default may not.
    engines: Vec<EngineReport>,
    /// What stands in the way of a server, by name.
    faults: Vec<String>,
}

#[expect(clippy::print_stdout, reason = "a command prints what it was asked for")]
pub(crate) async fn run(doctor: Doctor) -> anyhow::Result<()> {
    let config = load_from_machine(&doctor.place.flags(None))?;
    let report = report(&config).await;
    if doctor.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    if !report.works {
        bail!(
            "a server cannot do its work here: {}; herm doctor says above what to do",
            report.faults.join(", ")
        );
    }
    Ok(())
}

async fn report(config: &Config) -> Report {
    let data_directory = places::data_directory(&config.server.data_dir);
    let database = places::database(&config.database).await;
    let master_key = places::master_key(config).await;
    let providers = providers(config);
    let engines = engines(config).await;
    let mut faults: Vec<String> = [&data_directory, &database, &master_key]
        .into_iter()
        .filter(|check| !check.works)
        .map(|check| check.name.clone())
        .collect();
    let default = &config.models.default_model.provider;
    let lacks_key = providers.iter().any(|check| check.name == *default && !check.works);
    faults.extend(lacks_key.then(|| format!("the default model's provider {default}")));
    faults.extend(engines::fault(config, &engines));
    Report { works: faults.is_empty(), data_directory, database, master_key, providers, engines, faults }
}

/// Whether each provider can be called, as far as that can be seen without calling it.
fn providers(config: &Config) -> Vec<Check> {
    let configured = config.models.providers.iter();
    configured
        .map(|provider| match &provider.api_key_env {
            Some(variable) if !provider.has_key() => Check::fails(
                &provider.name,
                format!("{} at {}, without a key", provider.kind.as_str(), provider.base_url),
                format!("set {variable}; until then its runs end with provider_not_configured"),
            ),
            _ => {
                let key = if provider.api_key.is_some() { "with its key" } else { "which needs no key" };
                let found = format!("{} at {}, {key}", provider.kind.as_str(), provider.base_url);
                Check::works(&provider.name, found)
            }
        })
        .collect()
}

#[expect(clippy::print_stdout, reason = "a command prints what it was asked for")]
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
            Some(true) => "starts sandboxes, each with a user of its own",
            _ => {
                "starts sandboxes, which share the server's user: run the server as root to give each its own"
            }
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
    async fn what_stands_in_the_way_is_named_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let found = report(&config(dir.path(), &[])).await;
        assert!(!found.works);
        assert!(found.faults.iter().any(|fault| fault.contains("anthropic")), "{:?}", found.faults);
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
        assert!(!found.faults.iter().any(|fault| fault.contains("provider")), "{:?}", found.faults);
    }

    #[tokio::test]
    async fn what_is_no_database_or_directory_is_a_fault_with_advice() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("herm.sqlite3"), "x".repeat(5000)).unwrap();
        let spoilt = report(&config(dir.path(), &[])).await;
        assert!(!spoilt.database.works && spoilt.database.advice.is_some(), "{spoilt:?}");
        assert!(spoilt.faults.contains(&"database".to_owned()));
        std::fs::remove_dir_all(&data).unwrap();
        std::fs::write(&data, "a file").unwrap();
        let a_file = report(&config(dir.path(), &[])).await;
        assert!(!a_file.data_directory.works && a_file.data_directory.advice.is_some(), "{a_file:?}");
        let away = config(dir.path(), &[("HERM_DATABASE_URL", "postgres://u:s3cret@127.0.0.1:1/herm")]);
        let away = report(&away).await;
        assert!(!away.database.works && !format!("{away:?}").contains("s3cret"), "{away:?}");
    }
}
