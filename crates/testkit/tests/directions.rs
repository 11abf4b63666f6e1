//! Checks that crates depend on each other only as the map in ARCHITECTURE.md allows.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Each crate of the workspace, with the other crates of the workspace that it may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("command-risk", &[]),
    ("config", &["types"]),
    ("crypto", &["types"]),
    ("store", &["crypto", "types"]),
    ("llm", &["types"]),
    ("guest", &[]),
    ("sandbox", &["guest", "types"]),
    ("agent", &["command-risk", "types"]),
    ("outbound", &["types"]),
    ("egress", &["outbound", "types"]),
    ("app", &["agent", "crypto", "outbound", "sandbox", "store", "types"]),
    ("api", &["app", "types"]),
    ("worker", &["agent", "app", "egress", "llm", "sandbox", "store", "types"]),
    (
        "cli",
        &[
            "api", "app", "config", "crypto", "egress", "llm", "outbound", "sandbox", "store", "types",
            "worker",
        ],
    ),
    ("testkit", &[]),
];

#[test]
fn crates_depend_only_in_the_directions_of_the_map() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let map: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut seen = BTreeSet::new();
    for package in &metadata.packages {
        let Some(name) = package.name.strip_prefix("herm-") else { continue };
        let is_crate = package.manifest_path.as_str().contains("/crates/");
        let Some(allowed) = map.get(name) else {
            assert!(!is_crate, "{name} is not in the map: add it with the crates that it may depend on");
            continue;
        };
        seen.insert(name);
        for dependency in &package.dependencies {
            let is_for_tests = dependency.kind == DependencyKind::Development;
            if let Some(on) = dependency.name.strip_prefix("herm-").filter(|_| !is_for_tests) {
                assert!(allowed.contains(&on), "{name} must not depend on {on}");
            }
        }
    }
    assert_eq!(seen.len(), map.len(), "the map contains crates that no longer exist");
}

#[test]
fn the_testkit_is_for_tests_alone() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    for package in
        metadata.packages.iter().filter(|package| package.manifest_path.as_str().contains("/crates/"))
    {
        for dependency in package.dependencies.iter().filter(|dependency| dependency.name == "herm-testkit") {
            assert_eq!(
                dependency.kind,
                DependencyKind::Development,
                "{} depends on the testkit outside of tests",
                package.name
            );
        }
    }
}
