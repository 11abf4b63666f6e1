//! Tests of `herm doctor --json`: its report on a working installation and on one with problems.

use std::fs;
use std::os::unix::fs::symlink;

use herm_testkit::process::Launch;
use serde_json::{Value, json};

use crate::world::{World, on_both_databases, start};

on_both_databases!(a_missing_or_malformed_master_key_is_reported,);

fn doctor(world: &World) -> Launch {
    let docker_host = std::env::var("HERM_TEST_DOCKER_HOST");
    let docker_host =
        docker_host.expect("HERM_TEST_DOCKER_HOST is not set: run the tests through scripts/docker.sh");
    world
        .command
        .clone()
        .env("HERM_DOCKER_HOST", docker_host)
        .env("HERM_SANDBOX_IMAGE", "herm-sandbox:test")
        .arguments(&["doctor", "--json"])
}

/// Runs `herm doctor --json`, which prints its report as one line. Returns the exit status and the report.
async fn run_doctor(doctor: &Launch) -> (i32, Value) {
    let finished = doctor.run().await.unwrap();
    let status = finished.status.code().unwrap();
    assert_eq!(finished.stdout.lines().count(), 1, "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), usize::try_from(status).unwrap(), "{finished:?}");
    (status, serde_json::from_str(&finished.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_machine_is_reported_without_creating_anything() {
    let world = World::sqlite().await;
    let (status, report) = run_doctor(&doctor(&world)).await;
    assert_eq!((status, &report["works"], &report["faults"]), (0, &json!(true), &json!([])), "{report}");
    let fields: Vec<_> = report.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        ["works", "data_directory", "database", "master_key", "providers", "engines", "faults"]
    );
    for check in ["data_directory", "database", "master_key"] {
        assert_eq!(report[check]["works"], true, "{report}");
        assert_eq!(report[check].get("advice"), None);
    }
    let engines: Vec<_> =
        report["engines"].as_array().unwrap().iter().map(|engine| &engine["name"]).collect();
    assert_eq!(engines, ["docker", "local", "gvisor"]);
    for engine in report["engines"].as_array().unwrap() {
        assert!(engine["works"] == true && engine["own_users"].is_boolean(), "{engine}");
    }
    assert!(!world.data_dir().exists());
    let absent = doctor(&world).env("HERM_SANDBOX_IMAGE", "localhost:1/none:1");
    let (status, report) = run_doctor(&absent).await;
    let docker = &report["engines"][0];
    assert!(status == 0 && docker["works"] == false, "the local engine is used instead: {report}");
    assert!(docker["reason"].as_str().unwrap().contains("localhost:1/none:1"), "{docker}");
}

async fn a_missing_or_malformed_master_key_is_reported(world: World) {
    let server = start(&world.serve).await;
    server.terminate().unwrap();
    assert!(server.wait().await.unwrap().status.success());
    let (file, doctor) = (world.data_dir().join("master.key"), doctor(&world));
    let (status, report) = run_doctor(&doctor).await;
    assert_eq!((status, report["master_key"]["works"].as_bool()), (0, Some(true)), "{report}");
    let key = fs::read_to_string(&file).unwrap();
    assert!(!report.to_string().contains(key.trim()), "a key is never shown");

    let check_problem = async |doctor: &Launch| {
        let (status, report) = run_doctor(doctor).await;
        assert_eq!((status, &report["faults"]), (1, &json!(["master key"])), "{report}");
        assert!(report["master_key"]["advice"].as_str().unwrap().contains("HERM_MASTER_KEY"));
        report["master_key"]["found"].as_str().unwrap().to_owned()
    };
    fs::remove_file(&file).unwrap();
    assert!(check_problem(&doctor).await.contains("missing"));
    fs::write(&file, "no key").unwrap();
    assert!(check_problem(&doctor).await.contains("master.key"));
    // Replaces the master key file with a symbolic link to itself, which not even root can read.
    fs::remove_file(&file).unwrap();
    symlink("master.key", &file).unwrap();
    assert!(check_problem(&doctor).await.contains("failed to read"));
    // Like every `herm` command, `doctor` rejects an invalid setting with exit status 1 and without a report.
    let malformed = doctor.clone().env("HERM_MASTER_KEY", "c2hvcnQ=").run().await.unwrap();
    assert_eq!((malformed.status.code(), malformed.stdout.as_str()), (Some(1), ""));
    assert!(malformed.stderr.contains("HERM_MASTER_KEY") && malformed.stderr.lines().count() == 1);
    let (status, report) = run_doctor(&doctor.env("HERM_MASTER_KEY", key.trim())).await;
    assert_eq!((status, &report["master_key"]["found"]), (0, &json!("HERM_MASTER_KEY")), "{report}");
}
