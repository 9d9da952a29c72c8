//! Whole configurations, good and bad.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::directory::AttributeList;
use crate::scim::profile::Profile;

const GOOD: &str = r#"
[kafka]
brokers = ["localhost:9092"]
topic_prefix = "scim"
partitions = 12
create_topics = true
[kafka.properties]
"security.protocol" = "plaintext"

[registry]
url = "http://localhost:8081"
register = true

[defaults]
interval = "5m"
baseline = "state"
[defaults.guard]
max_ratio = 0.2
min_losses = 5
max_absolute = 500

[http]
listen = "127.0.0.1:9464"

[[account]]
name = "acme-stripe"
provider = "stripe"
token_env = "STRIPE_SCIM_TOKEN"

[[account]]
name = "acme-chargebee"
provider = "chargebee"
base_url = "https://acme.example/scim/v2"
token_file = "/run/secrets/chargebee"
interval = "1m"
attributes = ["userName", "displayName", "emails", "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department"]
"#;

fn error(text: &str) -> String {
    Config::parse("scimtail.toml", text).unwrap_err().0
}

#[test]
fn the_documented_example_is_accepted() {
    let config = Config::parse("scimtail.toml", GOOD).unwrap();
    assert_eq!(config.accounts.len(), 2);
    assert_eq!(config.accounts[0].base_url.as_str(), "https://access.stripe.com/scim/v2");
    assert_eq!(config.accounts[0].interval, Duration::from_secs(300));
    assert_eq!(config.accounts[1].interval, Duration::from_secs(60));
    assert_eq!(config.accounts[1].account.attributes.paths().len(), 4);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_key() {
    let text = GOOD.replace("interval = \"1m\"", "intervall = \"1m\"");
    assert_eq!(
        error(&text),
        "scimtail.toml:35: unknown key `intervall` in [[account]] acme-chargebee; did you mean `interval`?"
    );
    assert!(error(&GOOD.replace("partitions", "partitoins")).contains("did you mean `partitions`"));
}

#[test]
fn each_bad_value_is_refused_with_its_remedy() {
    for (from, to, expected) in [
        ("name = \"acme-chargebee\"", "name = \"acme-stripe\"", "two accounts are named `acme-stripe`"),
        (
            "provider = \"stripe\"",
            "provider = \"strpe\"",
            "unknown provider `strpe`; did you mean `stripe`? → scimtail providers lists them",
        ),
        ("interval = \"1m\"", "interval = \"60\"", "`60` is not a duration"),
        ("interval = \"1m\"", "interval = 60", "invalid type"),
        ("name = \"acme-stripe\"", "name = \"Acme/Stripe\"", "[a-z0-9][a-z0-9._-]{0,62}"),
        (
            "provider = \"stripe\"",
            "provider = \"aws-identity-center\"",
            "→ base_url = \"https://scim.REGION.amazonaws.com/TENANT_ID/scim/v2\"",
        ),
        ("https://acme.example", "http://acme.example", "must begin with https://"),
        ("https://acme.example", "https://user:pass@acme.example", "must not hold credentials"),
        ("token_env = \"STRIPE_SCIM_TOKEN\"", "", "either token_env or token_file"),
        ("localhost:9092", "kafka.example:9092", "plain text"),
        ("max_ratio = 0.2", "max_ratio = 20", "between 0 and 1"),
        ("url = \"http://localhost:8081\"", "url = \"localhost\"", "[registry] url"),
        ("partitions = 12", "partitions = 0", "between 1 and 10000"),
        ("http://localhost:8081", "http://user:pass@localhost:8081", "[registry] url must not hold credentials"),
        ("http://localhost:8081", "http://localhost:8081?key=x", "[registry] url must not hold credentials"),
        (
            "localhost:9092",
            "user:pass@localhost:9092",
            "\"sasl.username\" in [kafka.properties] and \"sasl.password\" in [kafka.secrets]",
        ),
        ("\"security.protocol\"", "security.protocol", "[kafka.properties] security is not a text"),
        ("[registry]", "[kafka.secrets]\n\"sasl.password\" = \"x\"\n[registry]", "invalid type"),
        ("[registry]", "[kafka.secrets]\n\"sasl.password\" = { path = \"x\" }\n[registry]", "unknown key `path`"),
        (
            "[registry]",
            "[kafka.secrets]\n\"sasl.password\" = { file = \"a\", env = \"B\" }\n[registry]",
            "sasl.password takes one place; → { file = ",
        ),
        (
            "[registry]",
            "[kafka.secrets]\n\"security.protocol\" = { env = \"B\" }\n[registry]",
            "`security.protocol` is in [kafka.properties] and in [kafka.secrets]; → remove it from",
        ),
        (
            "[registry]",
            "[kafka.secrets]\n\"sasl.password\" = { env = \"a b\" }\n[registry]",
            "env is not the name of an environment variable; → env takes the NAME of a variable, not the secret",
        ),
        (
            "token_env",
            "token",
            "`token` in [[account]] acme-stripe: secrets do not belong in this file; → token_env or",
        ),
        ("token_file", "API-Key", "secrets do not belong in this file; → token_env or token_file"),
        ("interval", "password", "in [defaults]: secrets do not belong in this file; → password_env or password_file"),
        ("register", "password", "in [registry]: secrets do not belong in this file; → password_env or password_file"),
        ("partitions", "password", "unknown key `password` in [kafka]"),
        (
            "http://localhost:8081",
            "http://registry.example:8081",
            "[registry] url leads off this machine in plain text; → https://, or allow_plaintext = true",
        ),
        (
            "http://localhost:8081",
            "https://a:b@registry.example",
            "[registry] url must not hold credentials, a query or a fragment; → username and password_file, or token_file",
        ),
        (
            "register = true",
            "username = \"u\"",
            "[registry] username needs a password; → add either password_env or password_file",
        ),
        ("register = true", "password_file = \"p\"", "[registry] username is missing; → username = \"…\""),
        (
            "register = true",
            "username = \"\"\npassword_file = \"p\"",
            "[registry] username is empty; → username = \"…\"",
        ),
        (
            "register = true",
            "username = \"a:b\"\npassword_file = \"p\"",
            "[registry] username must not hold a colon or control characters (RFC 7617)",
        ),
        (
            "register = true",
            "token_env = \"A\"\ntoken_file = \"b\"",
            "[registry] token_env and token_file are both given; → remove one",
        ),
        (
            "register = true",
            "username = \"u\"\ntoken_file = \"b\"",
            "[registry] a token and a username or password are both given; → remove one of them",
        ),
        (
            "register = true",
            "client_cert_file = \"c\"",
            "[registry] client_cert_file has no use without its key; → client_key_file = \"…\"",
        ),
        (
            "register = true",
            "client_key_file = \"c\"",
            "[registry] client_key_file has no use without its certificate; → client_cert_file = \"…\"",
        ),
        ("register = true", "cafile = \"c\"", "unknown key `cafile` in [registry]; did you mean `ca_file`?"),
        (
            "register = true",
            "proxy = \"proxy.example\"",
            "[registry] proxy is not http://host:port; → proxy = \"http://proxy.example:3128\", or \"none\"",
        ),
        ("[http]", "[network]\nprox = \"none\"\n[http]", "unknown key `prox` in [network]; did you mean `proxy`?"),
        (
            "[http]",
            "[network]\nproxy_password = \"x\"\n[http]",
            "unknown key `proxy_password` in [network]; did you mean `proxy_password_env`?",
        ),
        (
            "[http]",
            "[network]\npassword = \"x\"\n[http]",
            "`password` in [network]: secrets do not belong in this file; → proxy_password_env or proxy_password_file",
        ),
        ("[http]", "[network]\nproxy = \"https://proxy:1\"\n[http]", "[network] proxy is not http://host:port; →"),
        (
            "[http]",
            "[network]\nproxy = \"http://u:p@proxy:1\"\n[http]",
            "[network] proxy must not hold credentials; → proxy_username and proxy_password_file",
        ),
        (
            "[http]",
            "[network]\nproxy = \"http://proxy:1/x\"\n[http]",
            "[network] proxy has more than http://host:port; →",
        ),
        (
            "[http]",
            "[network]\nproxy_username = \"u\"\n[http]",
            "[network] proxy_username has no use without a proxy; → proxy = \"http://proxy.example:3128\", or remove it",
        ),
        (
            "[http]",
            "[network]\nproxy = \"http://proxy:1\"\nproxy_username = \"u\"\n[http]",
            "[network] proxy_username needs a password; → add either proxy_password_env or proxy_password_file",
        ),
        (
            "[http]",
            "[network]\nproxy = \"http://proxy:1\"\nproxy_password_env = \"P\"\n[http]",
            "[network] proxy_username is missing; → proxy_username = \"…\"",
        ),
        (
            "[http]",
            "[network]\nproxy = \"http://proxy:1\"\nproxy_username = \"u:v\"\nproxy_password_env = \"P\"\n[http]",
            "[network] proxy_username must not hold a colon",
        ),
        (
            "[http]",
            "[network]\nproxy = \"http://proxy:1\"\nproxy_password_env = \"P\"\nproxy_password_file = \"p\"\n[http]",
            "[network] proxy_password_env and proxy_password_file are both given; → remove one",
        ),
        (
            "interval = \"1m\"",
            "proxy = \"none\"\nproxy_username = \"u\"",
            "acme-chargebee: proxy_username has no use without a proxy; →",
        ),
        ("interval = \"1m\"", "proxy = \"http://\"", "acme-chargebee: proxy is not http://host:port; →"),
        (
            "interval = \"1m\"",
            "client_cert_file = \"c\"",
            "acme-chargebee: client_cert_file has no use without its key; →",
        ),
        (
            "interval = \"1m\"",
            "private_key_file = \"k\"",
            "`private_key_file` has no use here; → remove it, the keys are token_env, token_file",
        ),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let error = error(&GOOD.replacen(from, to, 1));
        assert!(error.contains(expected) && error.lines().count() == 1, "{to}: {error}");
    }
}

/// Mistakes with a secret in the wrong place: a text of the good configuration, and its replacement.
const MISTAKES: &[(&str, &str)] = &[
    ("\"STRIPE_SCIM_TOKEN\"", "\"CANARY"),
    ("\"STRIPE_SCIM_TOKEN\"", "'CANARY\""),
    ("\"STRIPE_SCIM_TOKEN\"", "CANARY"),
    ("\"STRIPE_SCIM_TOKEN\"", "\"CANARY\" \"CANARY\""),
    ("\"STRIPE_SCIM_TOKEN\"", "\"CANARY\\q\""),
    ("\"STRIPE_SCIM_TOKEN\"", "\"\"\"CANARY\nCANARY\"\"\""),
    ("\"STRIPE_SCIM_TOKEN\"", "\"Bearer CANARY\""),
    ("\"STRIPE_SCIM_TOKEN\"", "\"$CANARY\""),
    ("\"STRIPE_SCIM_TOKEN\"", "[\"CANARY\"]"),
    ("\"STRIPE_SCIM_TOKEN\"", "{ CANARY = \"CANARY\" }"),
    ("\"STRIPE_SCIM_TOKEN\"", "\"A\"\ntoken_env = \"CANARY\""),
    ("\"STRIPE_SCIM_TOKEN\"", "\"A\"\ntoken_file = \"CANARY\""),
    ("\"STRIPE_SCIM_TOKEN\"", "\"A\"\nCANARY"),
    ("\"STRIPE_SCIM_TOKEN\"", "\"A\"\nCANARY = 1"),
    ("\"STRIPE_SCIM_TOKEN\"", "\"A\"\n[account.CANARY]"),
    ("\"STRIPE_SCIM_TOKEN\"", "\"A\"\nusername = \"CANARY\""),
    ("\"STRIPE_SCIM_TOKEN\"", "\"A\"\nbaseline = \"CANARY\""),
    ("\"STRIPE_SCIM_TOKEN\"", "\"A\"\nallow_private = \"CANARY\""),
    ("\"STRIPE_SCIM_TOKEN\"", "\"A\"\nattributes = \"CANARY\""),
    ("\"STRIPE_SCIM_TOKEN\"", "\"A\"\nattributes = [\n[\"CANARY\"]\n]"),
    ("\"STRIPE_SCIM_TOKEN\"", "\"A\"\nguard = \"CANARY\""),
    ("token_env = \"STRIPE_SCIM_TOKEN\"", "token = \"CANARY\""),
    ("token_env = \"STRIPE_SCIM_TOKEN\"", "token = CANARY"),
    ("token_env = \"STRIPE_SCIM_TOKEN\"", "token: \"CANARY\""),
    ("token_env = \"STRIPE_SCIM_TOKEN\"", "token_env.CANARY = 1"),
    ("token_env = \"STRIPE_SCIM_TOKEN\"", "password = \"CANARY\""),
    ("token_env = \"STRIPE_SCIM_TOKEN\"", "client_secret = \"CANARY\""),
    ("token_env = \"STRIPE_SCIM_TOKEN\"", "client_secret_env = \"CANARY\""),
    ("token_env = \"STRIPE_SCIM_TOKEN\"", "api_key = \"CANARY\""),
    ("token_env = \"STRIPE_SCIM_TOKEN\"", "secret = \"CANARY\""),
    ("token_env = \"STRIPE_SCIM_TOKEN\"", "bearer = \"CANARY\""),
    ("token_env = \"STRIPE_SCIM_TOKEN\"", "profile.auth = \"CANARY\""),
    ("token_env = \"STRIPE_SCIM_TOKEN\"", "profile = \"CANARY\""),
    ("token_env = \"STRIPE_SCIM_TOKEN\"", "profile = { token = \"CANARY\" }"),
    ("token_env = \"STRIPE_SCIM_TOKEN\"", "profile = { page_size = \"CANARY\" }"),
    ("token_env = \"STRIPE_SCIM_TOKEN\"", "profile = { auth_header = [\"CANARY\"] }"),
    ("token_env", "profile = { auth = \"api_key\", auth_header = \"X-Key: CANARY\" }\ntoken_env"),
    ("token_env", "profile = { rate_limits = [{ requests = 1, per = \"CANARY and more of it\" }] }\ntoken_env"),
    ("https://acme.example/scim/v2", "https://user:CANARY@acme.example/scim/v2"),
    ("https://acme.example/scim/v2", "http://user:CANARY@acme.example/scim/v2"),
    ("https://acme.example/scim/v2", "https://acme.example:CANARY/scim/v2"),
    ("https://acme.example/scim/v2", "//user:CANARY@acme.example/scim/v2"),
    ("https://acme.example/scim/v2", "https://acme.example/scim/v2?token=CANARY"),
    ("https://acme.example/scim/v2", "https://acme.example/scim/v2#CANARY"),
    ("http://localhost:8081", "http://user:CANARY@localhost:8081"),
    ("http://localhost:8081", "http://localhost:8081?key=CANARY"),
    ("http://localhost:8081", "http://localhost:8081/#CANARY"),
    ("http://localhost:8081", "user:CANARY@localhost:8081"),
    ("register = true", "password = \"CANARY\""),
    ("http://localhost:8081", "http://CANARY@registry.example"),
    ("http://localhost:8081", "http://registry.example/CANARY"),
    ("http://localhost:8081", "https://registry.example:CANARY"),
    ("register = true", "username = \"CANARY\""),
    ("register = true", "username = \"u:CANARY\"\npassword_env = \"P\""),
    ("register = true", "username = \"CANARY\"\ntoken_file = \"t\""),
    ("register = true", "username = \"u\"\npassword_env = \"$CANARY\""),
    ("register = true", "password_file = \"CANARY\""),
    ("register = true", "token_env = \"Bearer CANARY\""),
    ("register = true", "token_env = \"T\"\ntoken_file = \"CANARY\""),
    ("register = true", "client_cert_file = \"CANARY\""),
    ("register = true", "client_key_file = \"CANARY\""),
    ("register = true", "client_key = \"CANARY\""),
    ("register = true", "ca_file = [\"CANARY\"]"),
    ("register = true", "allow_plaintext = \"CANARY\""),
    ("register = true", "proxy = \"http://u:CANARY@proxy:1\""),
    ("register = true", "proxy_username = \"CANARY\""),
    ("[http]", "[network]\nproxy = \"http://u:CANARY@proxy:1\"\n[http]"),
    ("[http]", "[network]\nproxy = \"http://proxy:CANARY\"\n[http]"),
    ("[http]", "[network]\nproxy = \"http://proxy/?password=CANARY\"\n[http]"),
    ("[http]", "[network]\nproxy = \"CANARY\"\n[http]"),
    ("[http]", "[network]\nproxy = \"u:CANARY@proxy:1\"\n[http]"),
    ("[http]", "[network]\nproxy_password = \"CANARY\"\n[http]"),
    ("[http]", "[network]\npassword = \"CANARY\"\n[http]"),
    ("[http]", "[network]\nproxy_username = \"CANARY\"\n[http]"),
    ("[http]", "[network]\nproxy_password_env = \"CANARY\"\n[http]"),
    (
        "[http]",
        "[network]\nproxy = \"http://proxy:1\"\nproxy_username = \"u\"\nproxy_password_env = \"$CANARY\"\n[http]",
    ),
    ("\"STRIPE_SCIM_TOKEN\"", "\"A\"\nproxy = \"http://u:CANARY@proxy:1\""),
    ("\"STRIPE_SCIM_TOKEN\"", "\"A\"\nproxy_password_file = \"CANARY\""),
    ("\"STRIPE_SCIM_TOKEN\"", "\"A\"\nclient_key_file = \"CANARY\""),
    ("\"STRIPE_SCIM_TOKEN\"", "\"A\"\nprivate_key_file = \"CANARY\""),
    ("\"STRIPE_SCIM_TOKEN\"", "\"A\"\nprivate_key = \"CANARY\""),
    ("\"STRIPE_SCIM_TOKEN\"", "\"A\"\nkey_id = \"CANARY\""),
    ("register = true", "register = \"CANARY\""),
    ("localhost:9092", "user:CANARY@kafka.example:9092"),
    ("localhost:9092", "sasl_ssl://user:CANARY@kafka.example:9092"),
    ("\"security.protocol\" = \"plaintext\"", "\"sasl.password\" = \"CANARY"),
    ("\"security.protocol\" = \"plaintext\"", "\"sasl.password\" = [\"CANARY\"]"),
    ("\"security.protocol\" = \"plaintext\"", "sasl.password = \"CANARY\""),
    ("\"security.protocol\" = \"plaintext\"", "\"sasl.password=CANARY\" = \"\""),
    ("\"security.protocol\" = \"plaintext\"", "\"sasl.password\" = \"a\"\n\"sasl.password\" = \"CANARY\""),
    ("[kafka.properties]", "password = \"CANARY\"\n[kafka.properties]"),
    ("[registry]", "[kafka.secrets]\n\"sasl.password\" = \"CANARY\"\n[registry]"),
    ("[registry]", "[kafka.secrets]\n\"sasl.password\" = { env = \"CANARY x\" }\n[registry]"),
    ("[registry]", "[kafka.secrets]\n\"sasl.password=CANARY\" = { env = \"A\" }\n[registry]"),
    ("partitions = 12", "partitions = \"CANARY\""),
    ("interval = \"5m\"", "token = \"CANARY\""),
];

#[test]
fn no_error_repeats_a_secret_in_the_wrong_place() {
    for canary in ["sk_live_4ca9ary", "eyJ4ca9ary", "4CA9ARY4CA9ARY"] {
        for (from, to) in MISTAKES {
            assert!(GOOD.contains(from), "{from}");
            let to = to.replace("CANARY", canary);
            let error = error(&GOOD.replacen(from, &to, 1));
            assert!(!error.contains(canary) && error.lines().count() == 1, "{to}: {error}");
        }
    }
}

#[test]
fn the_way_to_the_registry_and_to_accounts_is_read_with_its_secrets_in_files() {
    let registry = "username = \"u\"\npassword_file = \"p\"\nca_file = \"ca.pem\"\nclient_cert_file = \"c.pem\"\n\
                    client_key_file = \"k.pem\"\nproxy = \"none\"";
    let network =
        "[network]\nproxy = \"http://10.0.0.1:3128\"\nproxy_username = \"u\"\nproxy_password_file = \"s\"\n[http]";
    let account = "interval = \"1m\"\nca_file = \"own.pem\"\nproxy = \"http://own.example:8080\"";
    let text = GOOD
        .replace("http://localhost:8081", "https://registry.example")
        .replace("register = true", registry)
        .replace("[http]", network)
        .replace("interval = \"1m\"", account);
    let config = Config::parse("scimtail.toml", &text).unwrap();
    let files = |files: Vec<&crate::transport::file::NamedFile>| {
        files.iter().map(|file| (file.key, file.path.to_str().unwrap().to_owned())).collect::<Vec<_>>()
    };
    let named = |key, path: &str| (key, path.to_owned());
    assert_eq!(
        files(config.registry.files().collect()),
        [
            named("password_file", "p"),
            named("ca_file", "ca.pem"),
            named("client_cert_file", "c.pem"),
            named("client_key_file", "k.pem")
        ]
    );
    assert_eq!(config.registry.proxy(), None);
    let shown = format!("{config:?}").replace(&text, "");
    assert!(shown.contains("Basic(the file that password_file names)"), "{shown}");
    assert!(shown.contains("ProxyConfig(10.0.0.1:3128)"), "{shown}");
    let proxies = config.accounts.iter().map(|account| account.network.proxy_to(&account.base_url));
    let expected = ["10.0.0.1:3128", "own.example:8080"].map(|proxy| Some(proxy.to_owned()));
    assert_eq!(proxies.collect::<Vec<_>>(), expected);
    assert_eq!(files(config.accounts[0].network.files().collect()), [named("proxy_password_file", "s")]);
    assert_eq!(files(config.accounts[1].network.files().collect()), [named("ca_file", "own.pem")]);

    // The registry takes a restart, accounts do not.
    let parsed = |from: &str, to: &str| Config::parse("scimtail.toml", &text.replacen(from, to, 1)).unwrap();
    assert!(!config.has_services_of(&parsed("ca_file = \"ca.pem\"", "ca_file = \"new.pem\"")));
    assert!(!config.has_services_of(&parsed("password_file = \"p\"", "password_env = \"P\"")));
    let other = parsed("ca_file = \"own.pem\"", "ca_file = \"new.pem\"");
    assert!(config.has_services_of(&other) && config.accounts[0] == other.accounts[0]);
    assert_ne!(config.accounts[1], other.accounts[1]);
}

#[test]
fn plain_text_to_the_registry_is_permitted_by_name_and_with_a_credential_it_is_remembered() {
    let parsed = |lines: &str| {
        let text = GOOD.replace("http://localhost:8081", "http://registry.example:8081");
        Config::parse("scimtail.toml", &text.replace("register = true", &format!("allow_plaintext = true\n{lines}")))
    };
    assert!(!parsed("").unwrap().registry.sends_secret_in_plain_text());
    assert!(parsed("token_env = \"T\"").unwrap().registry.sends_secret_in_plain_text());
    let local = Config::parse("scimtail.toml", &GOOD.replace("register = true", "token_env = \"T\"")).unwrap();
    assert!(!local.registry.sends_secret_in_plain_text());
}

#[test]
fn no_error_repeats_a_number_that_may_be_a_password() {
    for key in ["username", "password_env", "token_env", "client_secret_env", "client_id", "token_file", "token_url"] {
        let error = error(&GOOD.replacen("token_env = \"STRIPE_SCIM_TOKEN\"", &format!("{key} = 918273"), 1));
        assert!(error.contains("invalid type: integer, expected ") && !error.contains("918273"), "{error}");
    }
}

#[test]
fn no_error_about_a_token_url_repeats_it() {
    let keys = "provider = \"generic\"\nprofile = { auth = \"oauth2\" }\nclient_id = \"a\"\nclient_secret_env = \"B\"\n\
                base_url = \"https://acme.example\"\ntoken_url = ";
    for url in ["https://a:4ca9ary@b.example", "https//4ca9ary", "https://b.example?client_secret=4ca9ary", "4ca9ary"] {
        let mistake = GOOD.replace("token_env = \"STRIPE_SCIM_TOKEN\"", "");
        let error = error(&mistake.replacen("provider = \"stripe\"", &format!("{keys}\"{url}\""), 1));
        assert!(error.contains("token_url") && !error.contains("4ca9ary"), "{error}");
    }
}

/// Loads a configuration from its own folder, with these files beside it.
fn load(text: &str, files: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files.iter().chain([&("scimtail.toml", text)]) {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let loaded = Config::load(&folder.path().join("scimtail.toml"));
    loaded.map_err(|error| ConfigError(error.0.replace(&format!("{}/", folder.path().display()), "")))
}

#[test]
fn limits_have_defaults_and_an_account_says_what_differs() {
    let config = Config::parse("scimtail.toml", GOOD).unwrap();
    let limits = |config: &Config| {
        config
            .accounts
            .iter()
            .map(|config| (config.account.max_principals, config.account.limits.max_added))
            .collect::<Vec<_>>()
    };
    assert_eq!((config.memory, limits(&config)), (None, vec![(1_000_000, None); 2]));

    let own = "[account.limits]\nmax_principals = 7\n[account.guard]\nmax_added = 8\n";
    let defaults = "max_absolute = 500\nmax_added = 100\n[defaults.limits]\nmax_principals = 5000\n";
    let text = format!("{}{own}[limits]\nmemory = \"512MiB\"\n", GOOD.replace("max_absolute = 500\n", defaults));
    let config = Config::parse("scimtail.toml", &text).unwrap();
    assert_eq!((config.memory, limits(&config)), (Some(512 << 20), vec![(5_000, Some(100)), (7, Some(8))]));
}

#[test]
fn a_limit_that_makes_no_sense_is_refused_with_its_remedy() {
    let with = |lines: &str| error(&format!("{GOOD}{lines}\n"));
    for (lines, expected) in [
        ("[limits]\nmemory = \"512MB\"", "[limits] memory: this is not a size; → a whole number with KiB, MiB"),
        ("[limits]\nmemory = \"63MiB\"", "[limits] memory must be at least 64MiB"),
        ("[limits]\nmemory = 512", "invalid type: integer, expected a string"),
        ("[limits]\nmax_principals = 5", "unknown key `max_principals` in [limits]"),
        ("[account.limits]\nmax_principals = 0", "acme-chargebee: limits.max_principals must be at least 1"),
        ("[account.limits]\nmax_principals = -5", "invalid value: integer, expected a whole number of at least 0; → "),
        ("[account.limits]\nmemory = \"1GiB\"", "unknown key `memory` in [account.limits]"),
        ("[account.guard]\nmax_added = 0", "acme-chargebee: guard.max_added must be at least 1; → leave it out"),
    ] {
        let error = with(lines);
        assert!(error.contains(expected) && error.lines().count() == 1, "{lines}: {error}");
    }
}

#[test]
fn what_only_a_restart_changes_is_told_apart_from_accounts() {
    let parsed = |text: &str| Config::parse("scimtail.toml", text).unwrap();
    let running = parsed(GOOD);
    assert!(running.has_services_of(&parsed(&GOOD.replace("\"1m\"", "\"2m\""))));
    assert!(!running.has_services_of(&parsed(&format!("{GOOD}[limits]\nmemory = \"1GiB\"\n"))));
    for lines in ["[account.limits]\nmax_principals = 7\n", "[account.guard]\nmax_added = 7\n"] {
        let other = parsed(&format!("{GOOD}{lines}"));
        assert!(running.has_services_of(&other), "an account may change");
        assert!(running.accounts[0] == other.accounts[0] && running.accounts[1] != other.accounts[1], "{lines}");
    }
}

const PROVIDERS: &str = "[providers]\nacme = \"acme.toml\"\nstripe = \"ours.toml\"\n";

#[test]
fn files_add_and_replace_profiles_and_an_account_overrides_single_fields() {
    let account = "[account.profile]\npage_size = 7\ngroups = false\n";
    let text = GOOD.replace("provider = \"chargebee\"", "provider = \"acme\"") + account + PROVIDERS;
    let acme = ("acme.toml", "title = \"Acme\"\ninactive = \"hidden\"");
    let ours = ("ours.toml", "extends = \"stripe\"\npage_size = 50");
    let config = load(&text, &[acme, ours]).unwrap();
    let profiles: Vec<&Profile> = config.accounts.iter().map(|account| &*account.profile).collect();
    assert_eq!((profiles[0].page_size, profiles[0].groups), (50, true));
    assert_eq!((profiles[1].title.as_str(), profiles[1].page_size, profiles[1].groups), ("Acme", 7, false));
    assert_eq!(config.accounts[0].base_url.as_str(), "https://access.stripe.com/scim/v2");
    // The recorded name is that of the provider, also for a profile from a file.
    assert_eq!(config.accounts[1].account.provider, "acme");
    assert_ne!(
        config.accounts[1].account.profile_fingerprint,
        provider("generic", &ProviderTexts::new()).unwrap().fingerprint
    );
}

#[test]
fn accounts_of_one_provider_that_override_the_same_of_its_profile_hold_it_once_and_others_have_their_own() {
    let same = "page_size = 50";
    let accounts = [
        ("generic", same),
        ("generic", "page_size = 60"),
        ("generic", same),
        ("generic", ""),
        ("generic", ""),
        ("scimple", same),
        ("okta", ""),
        ("okta", ""),
    ];
    let account = |(number, (provider, line)): (usize, (&str, &str))| {
        let url = if provider == "okta" { "https://acme.okta.com" } else { "https://a.example/scim" };
        let head = format!("[[account]]\nname = \"a{number}\"\nprovider = \"{provider}\"\nbase_url = \"{url}\"\n");
        format!("{head}token_env = \"T\"\n[account.profile]\n{line}\n")
    };
    let text: String = accounts.into_iter().enumerate().map(account).collect();
    let head = "[kafka]\nbrokers = [\"localhost:9092\"]\n[registry]\nurl = \"http://localhost:8081\"\n";
    let scimple = ("scimple.toml", "title = \"Scimple\"");
    let providers = "[providers]\nscimple = \"scimple.toml\"\n";
    let config = load(&format!("{head}{text}{providers}"), &[scimple]).unwrap();
    let profiles: Vec<_> = config.accounts.iter().map(|account| &account.profile).collect();
    for (one, (provider, line)) in accounts.into_iter().enumerate() {
        for (other, beside) in accounts.into_iter().enumerate() {
            let once = Arc::ptr_eq(profiles[one], profiles[other]);
            assert_eq!(once, (provider, line) == beside, "{one} and {other}");
        }
        let size = line.strip_prefix("page_size = ").map(|size| size.parse().unwrap());
        assert!(size.is_none_or(|size: u32| size == profiles[one].page_size), "{one}");
    }
}

#[test]
fn an_account_whose_directory_cannot_be_read_is_refused_with_what_to_read_instead() {
    const WORDS: &str = "Acme lists only with a filter; → read the reports of Acme";
    let text = GOOD.replace("provider = \"chargebee\"", "provider = \"acme\"") + "[providers]\nacme = \"acme.toml\"\n";
    let acme = format!("title = \"Acme\"\nunreadable = \"{WORDS}\"");
    let error = load(&text, &[("acme.toml", &acme)]).unwrap_err().0;
    assert!(error.ends_with(&format!("scimtail.toml:30: [[account]] acme-chargebee: {WORDS}")), "{error}");
    let empty = error_of_profile("not_read = [\"guests\", \" \"]");
    assert!(empty.contains("[account.profile] not_read has an empty or an unprintable text"), "{empty}");
}

/// The complaint about this line in `[account.profile]`.
fn error_of_profile(line: &str) -> String {
    error(&format!("{GOOD}[account.profile]\n{line}\n"))
}

#[test]
fn the_interval_is_that_of_the_account_else_of_the_defaults_else_of_the_profile() {
    const ACME: (&str, &str) = ("acme.toml", "title = \"Acme\"\ninterval = \"24h\"\nprice_per_request = 0.002");
    let interval = |own: &str, of_all: &str| {
        let text = GOOD.replace("provider = \"chargebee\"", "provider = \"acme\"");
        let text = text.replace("interval = \"1m\"", own).replace("interval = \"5m\"", of_all);
        let config = load(&format!("{text}\n[providers]\nacme = \"acme.toml\"\n"), &[ACME]).unwrap();
        (config.accounts[0].interval.as_secs(), config.accounts[1].interval.as_secs())
    };
    assert_eq!(interval("interval = \"1m\"", "interval = \"2m\""), (120, 60));
    assert_eq!(interval("", "interval = \"2m\""), (120, 120));
    assert_eq!(interval("", ""), (300, 86_400));
    for (line, complaint) in [
        ("interval = \"soon\"", "interval: `soon` is not a duration"),
        ("price_per_request = 0.0", "price_per_request must be above 0; → leave it out if requests cost nothing"),
    ] {
        assert!(error(&format!("{GOOD}[account.profile]\n{line}\n")).contains(complaint), "{line}");
    }
}

#[test]
fn a_profile_adds_attributes_to_the_default_list_and_an_account_adds_to_them_or_replaces_them() {
    const ACME: (&str, &str) = ("acme.toml", "title = \"Acme\"\nattributes = [\"orgRole\", \"TITLE\"]");
    let published = |defaults: &str, own: &str| {
        let text = GOOD
            .replace("provider = \"chargebee\"", "provider = \"acme\"")
            .replace("[defaults]", &format!("[defaults]\n{defaults}"));
        let text = text.split_once("attributes = [\"userName\", \"displayName\"").unwrap().0.to_owned();
        let text = format!("{text}{own}\n[providers]\nacme = \"acme.toml\"\n");
        load(&text, &[ACME]).unwrap().accounts[1].account.attributes.paths().to_vec()
    };
    let defaults = AttributeList::default().paths().to_vec();
    let and = |more: &[&str]| [defaults.clone(), more.iter().map(ToString::to_string).collect()].concat();
    for (of_all, own, expected) in [
        ("", "", and(&["orgRole"])),
        ("", "attributes_add = [\"seat\", \"orgrole\"]", and(&["orgRole", "seat"])),
        ("", "attributes = [\"userName\"]", vec!["userName".to_owned()]),
        ("", "attributes = [\"userName\"]\nattributes_add = [\"seat\"]", vec!["userName".into(), "seat".into()]),
        ("attributes = [\"title\"]", "", vec!["title".to_owned()]),
        ("attributes = [\"title\"]", "attributes_add = [\"seat\"]", vec!["title".into(), "seat".into()]),
        ("attributes_add = [\"desk\"]", "", and(&["orgRole", "desk"])),
        ("attributes_add = [\"desk\"]", "attributes_add = [\"seat\"]", and(&["orgRole", "seat"])),
        // A list of the account's own is all of it.
        ("attributes_add = [\"desk\"]", "attributes = [\"userName\"]", vec!["userName".to_owned()]),
    ] {
        assert_eq!(published(of_all, own), expected, "[defaults] {of_all}; {own}");
    }
    for key in ["attributes", "attributes_add"] {
        let empty = format!("[defaults]\n{key} = [\" \"]");
        assert!(error(&GOOD.replace("[defaults]", &empty)).contains(&format!("{key} has an empty name; → remove it")));
        let empty = format!("token_env = \"STRIPE_SCIM_TOKEN\"\n{key} = [\"\"]");
        let error = error(&GOOD.replace("token_env = \"STRIPE_SCIM_TOKEN\"", &empty));
        assert!(error.contains(&format!("acme-stripe: {key} has an empty name; → remove it")), "{error}");
    }
}

#[test]
fn a_bad_profile_is_named_with_its_file_its_line_and_the_nearest_key() {
    let ours = ("ours.toml", "extends = \"stripe\"");
    for (acme, expected) in [
        (
            "title = \"Acme\"\npagesize = 3",
            "scimtail.toml: [providers] acme: acme.toml:2: unknown key `pagesize`; did you mean `page_size`?",
        ),
        ("page_size = [\n", "scimtail.toml: [providers] acme: acme.toml:"),
        ("\npage_size = 0", "acme: acme.toml:2: page_size must be at least 1"),
        ("paging = \"magic\"", "acme: acme.toml:1: paging: unknown variant `magic`, expected one of `auto`"),
        ("extends = \"acme2\"", "acme: acme.toml: unknown provider `acme2`; there are acme, airtable"),
    ] {
        let error = load(&(GOOD.to_owned() + PROVIDERS), &[("acme.toml", acme), ours]).unwrap_err().0;
        assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
    }
    let missing = load(&(GOOD.to_owned() + PROVIDERS), &[ours]).unwrap_err().0;
    assert!(missing.contains("[providers] acme: acme.toml cannot be read"), "{missing}");
    let name = load(&GOOD.replace("[http]", "[providers]\n\"A/B\" = \"x\"\n[http]"), &[]).unwrap_err().0;
    assert!(name.contains("[providers] A/B: a name is"), "{name}");
}

#[test]
fn a_bad_override_is_named_with_its_account_and_the_nearest_key() {
    let overridden = |line: &str| error(&format!("{GOOD}[account.profile]\n{line}\n"));
    assert_eq!(
        overridden("memberchips = \"get\""),
        "scimtail.toml:30: [[account]] acme-chargebee: [account.profile] unknown key `memberchips`; \
         did you mean `memberships`?"
    );
    assert!(overridden("page_size = 0").contains("acme-chargebee: [account.profile] page_size must be"));
    assert!(overridden("inactive = \"gone\"").contains("[account.profile] inactive: unknown variant `gone`"));
    assert!(overridden("extends = \"stripe\"").contains("[account.profile] unknown key `extends`"));
}

/// [`GOOD`] with the section `[kafka.oauth]`: `from` replaced by `to` in it.
fn with_oauth(from: &str, to: &str) -> String {
    let section = "[kafka.oauth]\ntoken_url = \"https://login.example/token\"\nclient_id = \"id\"\n\
                   client_secret_file = \"secret\"\nscope = \"kafka\"\nextensions = { logicalCluster = \"lkc-1\" }\n";
    assert!(section.contains(from), "{from}");
    let text = GOOD.replacen("\"plaintext\"", "\"sasl_ssl\"", 1);
    text.replacen("[registry]", &format!("{}[registry]", section.replacen(from, to, 1)), 1)
}

#[test]
fn tokens_of_kafka_are_read_with_their_files_and_compared_by_all_that_leads_to_another_token() {
    let parse = |text: &str| Config::parse("scimtail.toml", text).unwrap();
    let config = parse(&with_oauth("scope", "ca_file = \"ca.pem\"\nscope"));
    let files: Vec<_> = config.kafka_files.iter().map(|file| (file.key, file.path.to_str().unwrap())).collect();
    assert_eq!(files, [("client_secret_file", "secret"), ("ca_file", "ca.pem")]);
    assert!(!format!("{config:?}").contains("lkc-1"));
    let same = parse(&with_oauth("id", "id"));
    assert_eq!(same.kafka, parse(&with_oauth("id", "id")).kafka);
    for (from, to) in [
        ("login.example", "other.example"),
        ("\"id\"", "\"other\""),
        ("\"secret\"", "\"other\""),
        ("client_secret_file", "private_key_file"),
        ("\"kafka\"", "\"other\""),
        ("lkc-1", "lkc-2"),
        ("scope", "ca_file = \"ca.pem\"\nscope"),
    ] {
        assert_ne!(same.kafka, parse(&with_oauth(from, to)).kafka, "{to}");
    }
}

#[test]
fn each_wrong_key_of_kafkas_tokens_has_its_sentence_and_remedy() {
    for (from, to, words) in [
        ("token_url", "#", "[kafka.oauth] token_url is missing; → token_url = \"https://…/token\""),
        ("client_id", "#", "[kafka.oauth] client_id is missing; → client_id ="),
        ("client_secret_file", "#", "[kafka.oauth] needs a secret; → add either client_secret_env"),
        ("client_secret_file", "token_file", "unknown key `token_file` in [kafka.oauth]"),
        ("client_secret_file", "client_secret", "secrets do not belong in this file; → client_secret_env or"),
        ("https://login", "http://login", "[kafka.oauth] token_url must begin with https://"),
        ("https://login", "https://a:b@login", "[kafka.oauth] token_url must not hold credentials"),
        ("logicalCluster", "logical-cluster", "extensions has a name that is not one; → letters only"),
        ("logicalCluster", "auth", "extensions has a name that is not one; → letters only"),
        ("lkc-1", "", "the value of logicalCluster in extensions is empty"),
        ("\"lkc-1\"", "1", "invalid type"),
        ("scope", "client_key_file = \"k\"\nscope", "[kafka.oauth] client_key_file has no use without its certificate"),
        ("scope", "proxy_username = \"u\"\nscope", "[kafka.oauth] proxy_username has no use without a proxy"),
        ("scope", "key_id = \"k\"\nscope", "[kafka.oauth] key_id has no use without private_key_file"),
    ] {
        let error = error(&with_oauth(from, to));
        assert!(error.contains(words) && error.lines().count() == 1, "{to}: {error}");
    }
    let with = |from: &str, to: &str| error(&with_oauth("id", "id").replacen(from, to, 1));
    let sasl = "\"security.protocol\" = \"sasl_ssl\"";
    for (text, words) in [
        (with("sasl_ssl", "ssl"), "[kafka.oauth] has no use without SASL; → \"security.protocol\" = \"sasl_ssl\""),
        (with(sasl, &format!("{sasl}\n\"sasl.mechanism\" = \"PLAIN\"")), "no use with another \"sasl.mechanism\"; →"),
        (
            with(sasl, &format!("{sasl}\n\"sasl.oauthbearer.method\" = \"oidc\"")),
            "`sasl.oauthbearer.method` has no use here; → token_url, client_id and client_secret_file in [kafka.oauth]",
        ),
        (
            error(&GOOD.replacen("\"plaintext\"", "\"sasl_ssl\"\n\"sasl.mechanisms\" = \"OAUTHBEARER\"", 1)),
            "\"sasl.mechanism\" = \"OAUTHBEARER\" needs tokens; → token_url, client_id and client_secret_file",
        ),
    ] {
        assert!(text.contains(words) && text.lines().count() == 1, "{text}");
    }
}

#[test]
fn no_error_about_kafkas_tokens_repeats_a_secret_in_the_wrong_place() {
    for canary in ["sk_live_4ca9ary", "eyJ4ca9ary", "4CA9ARY4CA9ARY"] {
        for (from, to) in [
            ("https://login.example/token", "CANARY"),
            ("https://login.example/token", "http://CANARY@login.example"),
            ("https://login.example/token", "https://login.example/token?client_secret=CANARY"),
            ("\"id\"", "[\"CANARY\"]"),
            ("client_secret_file", "client_secret = \"CANARY\"\n#"),
            ("client_secret_file = \"secret\"", "client_secret_env = \"CANARY x\""),
            ("scope", "client_secret_env = \"CANARY\"\nscope"),
            ("scope", "private_key_file = \"CANARY\"\nscope"),
            ("scope", "proxy = \"CANARY\"\nscope"),
            ("logicalCluster", "\"CANARY 1\""),
            ("\"lkc-1\"", "\"CANARY\\u0001\""),
            ("\"lkc-1\"", "[\"CANARY\"]"),
            ("extensions = {", "extensions = \"CANARY\"\n#"),
        ] {
            let error = error(&with_oauth(from, &to.replace("CANARY", canary)));
            assert!(!error.contains(canary) && error.lines().count() == 1, "{to}: {error}");
        }
    }
}
