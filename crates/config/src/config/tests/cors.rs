//! Tests of the setting for CORS origins.

use super::*;

fn origins(value: &str) -> CorsOrigins {
    load_valid(&[("HERM_CORS_ORIGINS", value)], "").server.cors_origins
}

#[test]
fn origins_are_stored_as_browsers_send_them() {
    let list =
        "https://app.example.com, http://localhost:3000,http://[::1]:8080,https://a-b.example.com:8443";
    let CorsOrigins::List(list_entries) = origins(list) else { panic!("not a list") };
    assert_eq!(
        list_entries,
        [
            "https://app.example.com",
            "http://localhost:3000",
            "http://[::1]:8080",
            "https://a-b.example.com:8443"
        ]
    );
    let file = load_valid(&[], "cors_origins = ['https://app.example.com']").server.cors_origins;
    assert_eq!(file, CorsOrigins::List(vec!["https://app.example.com".to_owned()]));
}

#[test]
fn a_star_alone_allows_every_origin() {
    assert_eq!(origins("*"), CorsOrigins::Any);
    for value in ["*, https://app.example.com", "https://*.example.com", "https://*", "**"] {
        assert_error(&[("HERM_CORS_ORIGINS", value)], "", &["HERM_CORS_ORIGINS", "`*` alone"]);
    }
}

#[test]
fn an_origin_that_no_browser_sends_is_rejected() {
    for value in [
        "app.example.com",
        "https://",
        "https://app.example.com/",
        "https://app.example.com/path",
        "https://App.example.com",
        "HTTPS://app.example.com",
        "https://user@app.example.com",
        "https://app.example.com:0443",
        "https://app.example.com:70000",
        "https://app.example.com:",
        "https://[::1",
        "https://a:b:80",
        "ftp://app.example.com",
        "null",
    ] {
        assert_error(&[("HERM_CORS_ORIGINS", value)], "", &["HERM_CORS_ORIGINS", value]);
    }
    for value in ["https://app.example.com:443", "http://app.example.com:80"] {
        assert_error(
            &[("HERM_CORS_ORIGINS", value)],
            "",
            &["HERM_CORS_ORIGINS", "contains the default port"],
        );
    }
}

#[test]
fn an_empty_variable_overrides_the_file() {
    let config = load_valid(&[("HERM_CORS_ORIGINS", "")], "cors_origins = ['https://app.example.com']");
    assert_eq!(config.server.cors_origins, CorsOrigins::List(Vec::new()));
}
