//! Environment variables that make programs in a sandbox use the proxy and trust its certificates.

/// The address inside a sandbox to which programs connect to reach the proxy. The guest (the first process in the
/// sandbox) listens there and forwards the connections.
pub const PROXY_ADDRESS: &str = "127.0.0.1:3128";
/// The path of the certificate bundle inside a sandbox. It contains the root certificates of the server's machine and
/// the certificate of the proxy's certificate authority.
pub const BUNDLE_PATH: &str = "/run/herm/ca-bundle.pem";
/// The path, inside a sandbox, of the file that contains only the certificate of the proxy's certificate authority.
/// Programs that have built-in root certificates add this certificate to them.
pub const CA_PATH: &str = "/run/herm/ca.pem";

/// The addresses that programs connect to directly, without the proxy: only the sandbox itself.
const NO_PROXY: &str = "localhost,127.0.0.1,::1";
/// A dummy password in the URL of the proxy. Programs expect a password next to the user name. The proxy ignores it.
const PASSWORD: &str = "x";

/// The variables from which programs read the URL of the proxy.
const PROXY_VARIABLES: [&str; 8] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    // npm also reads its own variables, which override its configuration files.
    "npm_config_proxy",
    "npm_config_https_proxy",
];
const NO_PROXY_VARIABLES: [&str; 3] = ["NO_PROXY", "no_proxy", "npm_config_noproxy"];
/// The variables that make a program use the certificate bundle instead of its default root certificates.
const BUNDLE_VARIABLES: [&str; 11] = [
    // `SSL_CERT_FILE` is read by OpenSSL and programs based on it, Python's `ssl`, Go and rustls-native-certs.
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "npm_config_cafile",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "DENO_CERT",
];

/// Returns the environment variables for a command in a sandbox. The command authenticates to the proxy with the user
/// name `proxy_user`, which identifies the command in its connection records. Characters of `proxy_user` other than
/// ASCII letters, digits, `-`, `_` and `.` are removed.
pub fn environment(proxy_user: &str) -> Vec<(String, String)> {
    let user: String =
        proxy_user.chars().filter(|char| char.is_ascii_alphanumeric() || "-_.".contains(*char)).collect();
    let proxy = format!("http://{user}:{PASSWORD}@{PROXY_ADDRESS}");
    let proxies = PROXY_VARIABLES.iter().map(|name| (*name, proxy.as_str()));
    let others = [
        // Node.js has built-in root certificates. This variable adds the proxy's certificate authority to them.
        ("NODE_EXTRA_CA_CERTS", CA_PATH),
        // Node.js 24 and later use the proxy variables only if this variable is set.
        ("NODE_USE_ENV_PROXY", "1"),
        // By default, Git sends proxy credentials only after a 407 response, which this proxy never sends.
        ("GIT_HTTP_PROXY_AUTHMETHOD", "basic"),
        ("DENO_TLS_CA_STORE", "system"),
    ];
    proxies
        .chain(NO_PROXY_VARIABLES.iter().map(|name| (*name, NO_PROXY)))
        .chain(BUNDLE_VARIABLES.iter().map(|name| (*name, BUNDLE_PATH)))
        .chain(others)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_url_has_the_user_name_without_special_characters() {
        let variables = environment("run_01:step/2\n@evil");
        let of = |name: &str| variables.iter().find(|(other, _)| other == name).unwrap().1.clone();
        assert_eq!(of("HTTPS_PROXY"), "http://run_01step2evil:x@127.0.0.1:3128");
        assert_eq!(of("no_proxy"), "localhost,127.0.0.1,::1");
        assert_eq!(of("SSL_CERT_FILE"), BUNDLE_PATH);
        assert_eq!(of("NODE_EXTRA_CA_CERTS"), CA_PATH);
        let mut names: Vec<_> = variables.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), variables.len(), "each variable is set once");
    }
}
