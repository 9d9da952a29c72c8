//! A broker as companies run it: TLS, client certificates, SASL, and an authorizer. Beside the listeners that are right
//! it has those that are wrong in one way each.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::issuer::{AUDIENCE, ISSUER, SECRET, key_set};
use crate::services::{Broker, Listener, free_port, secured_broker};

pub const PASSWORD: &str = "canary-of-kafka";

/// A CA and what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// The key and the certificate of `name`, in PEM, for these host names.
    fn sign(&self, name: &str, hosts: &[&str], expired: bool) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("host names");
        params.distinguished_name.push(DnType::CommonName, name);
        if expired {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        }
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (key.serialize_pem(), certificate.pem())
    }
}

/// Files for clients, and the ports of the listeners.
pub struct Secured {
    pub broker: Broker,
    directory: TempDir,
    /// By the name of the listener.
    listeners: Vec<Listener>,
}

impl Secured {
    /// `localhost:port` of a listener.
    pub fn at(&self, name: &str) -> String {
        let listener = self.listeners.iter().find(|listener| listener.name == name);
        format!("localhost:{}", listener.unwrap_or_else(|| panic!("no listener {name}")).port)
    }

    /// A file for clients: `ca.pem`, `other.pem`, `client.key`, `client.crt`, `password`, `wrong-password`,
    /// `oauth-secret`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The broker is away meanwhile. Afterwards it and the files for its clients have certificates of another CA, and
    /// neither side trusts the one before.
    pub fn change_certificates(&mut self) {
        self.broker.kill();
        certify(self.directory.path());
        self.broker.restart();
    }

    /// `"name" = "value"`: the CA of the broker.
    pub fn ca(&self) -> String {
        format!("\"ssl.ca.location\" = \"{}\"", self.file("ca.pem").display())
    }
}

/// The secured broker of this test process. The first call starts it.
pub fn secured() -> &'static Secured {
    static STARTED: OnceLock<Secured> = OnceLock::new();
    STARTED.get_or_init(another)
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).expect("a file in a temporary directory");
    path
}

/// A CA, and what it signs for the broker and for its clients, in place of what there is.
fn certify(folder: &Path) {
    let authority = Authority::new("scimtail tests");
    write(folder, "ca.pem", &authority.pem);
    let (key, certificate) = authority.sign("scimtail-client", &["client.example"], false);
    write(folder, "client.key", &key);
    write(folder, "client.crt", &certificate);
    for (name, hosts, expired) in [
        ("server", &["localhost", "127.0.0.1"][..], false),
        ("wrong-name", &["kafka.example"], false),
        ("expired", &["localhost", "127.0.0.1"], true),
    ] {
        let (key, certificate) = authority.sign(name, hosts, expired);
        write(folder, &format!("{name}.pem"), &format!("{key}{certificate}"));
    }
}

/// Starts an extra one.
pub fn another() -> Secured {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let folder = directory.path();
    certify(folder);
    write(folder, "other.pem", &Authority::new("another CA").pem);
    write(folder, "password", PASSWORD);
    write(folder, "wrong-password", "canary-that-is-wrong");
    let secret = write(folder, "oauth-secret", SECRET);
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).expect("a file of ours");
    let [ca, own, wrong_name, expired] =
        ["ca.pem", "server.pem", "wrong-name.pem", "expired.pem"].map(|name| folder.join(name));
    let listeners: Vec<Listener> = [
        ("TLS", "SSL"),
        ("MTLS", "SSL"),
        ("SASLTLS", "SASL_SSL"),
        ("SASLPLAIN", "SASL_PLAINTEXT"),
        ("WRONGNAME", "SSL"),
        ("EXPIRED", "SSL"),
        ("ONLYPLAIN", "SASL_SSL"),
        ("OAUTH", "SASL_SSL"),
        ("SESSIONS", "SASL_SSL"),
    ]
    .into_iter()
    .map(|(name, protocol)| Listener { name, protocol, port: free_port().expect("a free port") })
    .collect();
    const SCRAM: &str = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    const BEARER: &str = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;";
    const VALIDATOR: &str = "org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler";
    // The default of Kafka 4.1 takes tokens for any audience.
    const TOKENS: &str = "org.apache.kafka.common.security.oauthbearer.BrokerJwtValidator";
    let keys = format!("file://{}", write(folder, "keys.json", &key_set()).display());
    let plain =
        format!("org.apache.kafka.common.security.plain.PlainLoginModule required user_scimtail=\"{PASSWORD}\";");
    let settings = format!(
        "ssl.keystore.type=PEM\n\
         ssl.keystore.location={own}\n\
         ssl.truststore.type=PEM\n\
         ssl.truststore.location={ca}\n\
         listener.name.mtls.ssl.client.auth=required\n\
         listener.name.wrongname.ssl.keystore.location={wrong_name}\n\
         listener.name.expired.ssl.keystore.location={expired}\n\
         sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN\n\
         listener.name.sasltls.scram-sha-512.sasl.jaas.config={SCRAM}\n\
         listener.name.sasltls.plain.sasl.jaas.config={plain}\n\
         listener.name.saslplain.scram-sha-512.sasl.jaas.config={SCRAM}\n\
         listener.name.saslplain.plain.sasl.jaas.config={plain}\n\
         listener.name.sessions.sasl.enabled.mechanisms=SCRAM-SHA-512\n\
         listener.name.sessions.scram-sha-512.sasl.jaas.config={SCRAM}\n\
         listener.name.sessions.scram-sha-512.connections.max.reauth.ms=10000\n\
         listener.name.onlyplain.sasl.enabled.mechanisms=PLAIN\n\
         listener.name.onlyplain.plain.sasl.jaas.config={plain}\n\
         listener.name.oauth.sasl.enabled.mechanisms=OAUTHBEARER\n\
         listener.name.oauth.oauthbearer.sasl.jaas.config={BEARER}\n\
         listener.name.oauth.oauthbearer.sasl.server.callback.handler.class={VALIDATOR}\n\
         listener.name.oauth.oauthbearer.connections.max.reauth.ms=3600000\n\
         sasl.oauthbearer.jwt.validator.class={TOKENS}\n\
         sasl.oauthbearer.jwks.endpoint.url={keys}\n\
         sasl.oauthbearer.expected.issuer={ISSUER}\n\
         sasl.oauthbearer.expected.audience={AUDIENCE}\n\
         authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
         super.users=User:ANONYMOUS\n",
        own = own.display(),
        ca = ca.display(),
        wrong_name = wrong_name.display(),
        expired = expired.display(),
    );
    let users = ["scimtail", "scim-reader", "scim-operator", "rotated"]
        .map(|user| format!("SCRAM-SHA-512=[name={user},password={PASSWORD}]"))
        .to_vec();
    // Kafka 4 reads keys only from where its operator permits it.
    let permitted = format!("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={keys}");
    let broker = secured_broker(listeners.clone(), users, settings, vec![permitted]);
    Secured { broker, directory, listeners }
}
