//! The environment variables by which programs in a sandbox find the proxy and what to trust.

/// Where the guest listens inside of a sandbox.
pub const PROXY_ADDRESS: &str = "127.0.0.1:3128";
/// Inside of a sandbox: the certificates to trust, those of the machine and the authority's.
pub const BUNDLE_PATH: &str = "/run/herm/ca-bundle.pem";
/// Inside of a sandbox: the authority's certificate alone, for programs that bring their own list along.
pub const CA_PATH: &str = "/run/herm/ca.pem";

/// What is reached without the proxy: the sandbox itself.
const NO_PROXY: &str = "localhost,127.0.0.1,::1";
/// Programs want a password beside the user's name; this one says nothing.
const PASSWORD: &str = "x";

/// Variables that name the proxy, each as some program wants it.
const PROXY_VARIABLES: [&str; 8] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    // npm has settings of its own, which win over a file that says something else.
    "npm_config_proxy",
    "npm_config_https_proxy",
];
const NO_PROXY_VARIABLES: [&str; 3] = ["NO_PROXY", "no_proxy", "npm_config_noproxy"];
/// Variables that name a bundle in place of what the program trusts otherwise.
const BUNDLE_VARIABLES: [&str; 11] = [
    // OpenSSL and what is built on it, Python's ssl, Go, rustls-native-certs.
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

/// The environment of a command. `proxy_user` tells its connections from those of other commands in their records;
/// what is not a letter, digit, `-`, `_` or `.` of it is left out.
pub fn environment(proxy_user: &str) -> Vec<(String, String)> {
    let user: String =
        proxy_user.chars().filter(|char| char.is_ascii_alphanumeric() || "-_.".contains(*char)).collect();
    let proxy = format!("http://{user}:{PASSWORD}@{PROXY_ADDRESS}");
    let bundle = PROXY_VARIABLES.iter().map(|name| (*name, proxy.as_str()));
    let others = [
        // Node.js brings a list of its own along; this one is added to it.
        ("NODE_EXTRA_CA_CERTS", CA_PATH),
        // Node.js from version 24 on takes the variables above only if it is told to.
        ("NODE_USE_ENV_PROXY", "1"),
        // Git otherwise names the user only if it is asked to, which it never is.
        ("GIT_HTTP_PROXY_AUTHMETHOD", "basic"),
        ("DENO_TLS_CA_STORE", "system"),
    ];
    bundle
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
    fn the_proxy_is_named_with_the_user_and_nothing_else_of_it() {
        let variables = environment("run_01:step/2\n@evil");
        let of = |name: &str| variables.iter().find(|(other, _)| other == name).unwrap().1.clone();
        assert_eq!(of("HTTPS_PROXY"), "http://run_01step2evil:x@127.0.0.1:3128");
        assert_eq!(of("no_proxy"), "localhost,127.0.0.1,::1");
        assert_eq!(of("SSL_CERT_FILE"), BUNDLE_PATH);
        assert_eq!(of("NODE_EXTRA_CA_CERTS"), CA_PATH);
        let mut names: Vec<_> = variables.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), variables.len(), "each once");
    }
}
