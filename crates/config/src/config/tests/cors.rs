//! Origins of web pages.

use super::*;

fn origins(value: &str) -> CorsOrigins {
    good(&[("HERM_CORS_ORIGINS", value)], "").server.cors_origins
}

#[test]
fn origins_are_kept_as_browsers_write_them() {
    let list =
        "https://app.example.com, http://localhost:3000,http://[::1]:8080,https://a-b.example.com:8443";
    let CorsOrigins::List(kept) = origins(list) else { panic!("not a list") };
    assert_eq!(
        kept,
        [
            "https://app.example.com",
            "http://localhost:3000",
            "http://[::1]:8080",
            "https://a-b.example.com:8443"
        ]
    );
    let file = good(&[], "cors_origins = ['https://app.example.com']").server.cors_origins;
    assert_eq!(file, CorsOrigins::List(vec!["https://app.example.com".to_owned()]));
}

#[test]
fn everybody_is_allowed_by_a_star_alone() {
    assert_eq!(origins("*"), CorsOrigins::Any);
    for value in ["*, https://app.example.com", "https://*.example.com", "https://*", "**"] {
        says(&[("HERM_CORS_ORIGINS", value)], "", &["HERM_CORS_ORIGINS", "`*` alone"]);
    }
}

#[test]
fn what_no_browser_would_send_is_refused() {
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
        says(&[("HERM_CORS_ORIGINS", value)], "", &["HERM_CORS_ORIGINS", value]);
    }
    for value in ["https://app.example.com:443", "http://app.example.com:80"] {
        says(&[("HERM_CORS_ORIGINS", value)], "", &["HERM_CORS_ORIGINS", "leave the scheme's own port out"]);
    }
}

#[test]
fn an_empty_variable_takes_back_what_the_file_allows() {
    let config = good(&[("HERM_CORS_ORIGINS", "")], "cors_origins = ['https://app.example.com']");
    assert_eq!(config.server.cors_origins, CorsOrigins::List(Vec::new()));
}
