//! `herm doctor --json`: what scripts read of it, on a machine where all is well, and where it is not.

use std::fs;
use std::os::unix::fs::symlink;

use herm_testkit::process::Launch;
use serde_json::{Value, json};

use crate::world::{World, on_both_databases, start};

on_both_databases!(a_master_key_that_is_missing_or_spoilt_is_a_fault,);

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

/// What it says, on one line, with its exit status.
async fn said(doctor: &Launch) -> (i32, Value) {
    let finished = doctor.run().await.unwrap();
    let status = finished.status.code().unwrap();
    assert_eq!(finished.stdout.lines().count(), 1, "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), usize::try_from(status).unwrap(), "{finished:?}");
    (status, serde_json::from_str(&finished.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_machine_is_told_what_it_has_and_nothing_is_made() {
    let world = World::sqlite().await;
    let (status, report) = said(&doctor(&world)).await;
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
    let engines: Vec<_> = report["engines"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(engines, ["docker", "local", "gvisor"]);
    for engine in report["engines"].as_array().unwrap() {
        assert!(engine["works"] == true && engine["own_users"].is_boolean(), "{engine}");
    }
    assert!(!world.data_dir().exists());
    let absent = doctor(&world).env("HERM_SANDBOX_IMAGE", "localhost:1/none:1");
    let (status, report) = said(&absent).await;
    let docker = &report["engines"][0];
    assert!(status == 0 && docker["works"] == false, "local takes its place: {report}");
    assert!(docker["reason"].as_str().unwrap().contains("localhost:1/none:1"), "{docker}");
}

async fn a_master_key_that_is_missing_or_spoilt_is_a_fault(world: World) {
    let server = start(&world.serve).await;
    server.terminate().unwrap();
    assert!(server.wait().await.unwrap().status.success());
    let (file, doctor) = (world.data_dir().join("master.key"), doctor(&world));
    let (status, report) = said(&doctor).await;
    assert_eq!((status, report["master_key"]["works"].as_bool()), (0, Some(true)), "{report}");
    let key = fs::read_to_string(&file).unwrap();
    assert!(!report.to_string().contains(key.trim()), "a key is never shown");

    let faulty = async |doctor: &Launch| {
        let (status, report) = said(doctor).await;
        assert_eq!((status, &report["faults"]), (1, &json!(["master key"])), "{report}");
        assert!(report["master_key"]["advice"].as_str().unwrap().contains("HERM_MASTER_KEY"));
        report["master_key"]["found"].as_str().unwrap().to_owned()
    };
    fs::remove_file(&file).unwrap();
    assert!(faulty(&doctor).await.contains("gone"));
    fs::write(&file, "no key").unwrap();
    assert!(faulty(&doctor).await.contains("master.key"));
    // Nobody can read what is a way to itself, not even root.
    fs::remove_file(&file).unwrap();
    symlink("master.key", &file).unwrap();
    assert!(faulty(&doctor).await.contains("failed to read"));
    // A setting that is wrong is refused as every command refuses it.
    let malformed = doctor.clone().env("HERM_MASTER_KEY", "c2hvcnQ=").run().await.unwrap();
    assert_eq!((malformed.status.code(), malformed.stdout.as_str()), (Some(1), ""));
    assert!(malformed.stderr.contains("HERM_MASTER_KEY") && malformed.stderr.lines().count() == 1);
    let (status, report) = said(&doctor.env("HERM_MASTER_KEY", key.trim())).await;
    assert_eq!((status, &report["master_key"]["found"]), (0, &json!("HERM_MASTER_KEY")), "{report}");
}
