//! Tests that the committed OpenAPI document is up to date and consistent.

use std::collections::BTreeSet;

use serde_json::Value;

#[test]
fn the_committed_document_is_up_to_date() {
    let committed = include_str!("../../../../openapi/v1.json");
    assert!(committed == herm_api::openapi(), "openapi/v1.json is out of date; run `make openapi`");
}

#[test]
fn every_reference_resolves_and_every_operation_has_a_unique_id_and_a_description() {
    let document: Value = serde_json::from_str(&herm_api::openapi()).unwrap();
    assert_eq!(document["openapi"].as_str().unwrap().split('.').next(), Some("3"));
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document.pointer(reference).is_some(), "{reference} is dangling");
    }
    let mut ids = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path} has no id"));
            assert!(ids.insert(id.to_owned()), "{id} is used twice");
            assert!(
                operation["summary"].is_string() || operation["description"].is_string(),
                "{id} has no description"
            );
        }
    }
}
