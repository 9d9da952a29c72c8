//! What a client trusts and what it shows in a TLS handshake.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use url::Url;

use super::file::NamedFile;
use crate::directory::Problem;

/// Bytes of a file of certificates or of a key. The bundle of all public CAs has a quarter of a megabyte.
const PEM_BYTES_MAX: usize = 1 << 20;
/// How long clients that are made share a TLS configuration. Each one of its own would be a quarter of a megabyte of
/// certificates that this machine trusts; one for ever would never know those that are installed later.
const TLS_SHARED: Duration = Duration::from_secs(60);

/// The files that the keys `ca_file`, `client_cert_file` and `client_key_file` name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    pub ca: Option<NamedFile>,
    pub client: Option<ClientFiles>,
}

/// The certificate of this client, with those that lead to its CA, and the key of the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    pub certificate: NamedFile,
    pub key: NamedFile,
}

impl TlsFiles {
    /// All files, as they are now.
    ///
    /// # Errors
    /// A file cannot be read, or does not hold what its key says; never with any of its content.
    pub fn read(&self) -> Result<Trust, Problem> {
        let roots = self.ca.as_ref().map(certificates).transpose()?.unwrap_or_default();
        let mut store = RootCertStore::empty();
        if let (Some(file), (_, 1..)) = (&self.ca, store.add_parsable_certificates(roots.iter().cloned())) {
            let what = format!("{file} holds a certificate that cannot be trusted as a CA");
            return Err(Problem::new(what).with_remedy("the certificate of the CA itself, in PEM"));
        }
        let identity = self.client.as_ref().map(ClientFiles::read).transpose()?.map(Arc::new);
        Ok(Trust { roots, identity })
    }

    /// All named files.
    pub fn files(&self) -> impl Iterator<Item = &NamedFile> {
        self.ca.iter().chain(self.client.iter().flat_map(|client| [&client.certificate, &client.key]))
    }
}

impl ClientFiles {
    fn read(&self) -> Result<Identity, Problem> {
        let chain = certificates(&self.certificate)?;
        let pem = self.key.read(PEM_BYTES_MAX)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
            Problem::new(format!("{} holds no private key in PEM", self.key))
                .with_remedy("a key without a passphrase, which begins with -----BEGIN PRIVATE KEY-----")
        })?;
        let identity = Identity { chain, key };
        // Only a configuration shows that both belong together.
        let made = bare().and_then(|builder| {
            builder
                .with_root_certificates(RootCertStore::empty())
                .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
        });
        made.map_err(|_| {
            Problem::new(format!("the key in {} is not that of the certificate in {}", self.key, self.certificate))
                .with_remedy("client_cert_file and client_key_file of one certificate")
        })?;
        Ok(identity)
    }
}

fn certificates(file: &NamedFile) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let pem = file.read(PEM_BYTES_MAX)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    read.ok().filter(|certificates| !certificates.is_empty()).ok_or_else(|| {
        Problem::new(format!("{file} holds no certificate in PEM"))
            .with_remedy("certificates that begin with -----BEGIN CERTIFICATE-----")
    })
}

/// What a client trusts beside the CAs of the machine, and the certificate that it shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    roots: Vec<CertificateDer<'static>>,
    identity: Option<Arc<Identity>>,
}

#[derive(PartialEq, Eq)]
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} certificates)", self.chain.len())
    }
}

/// TLS configurations that were made lately.
static SHARED: Mutex<Vec<(Instant, Trust, ClientConfig)>> = Mutex::new(Vec::new());

impl Trust {
    /// The TLS configuration of a client of `url`. A machine without CA certificates has one for plain HTTP.
    ///
    /// # Errors
    /// TLS is needed, and no CA is trusted.
    pub(super) fn config_for(&self, url: &Url) -> Result<ClientConfig, Problem> {
        if url.scheme() != "https" {
            let builder = bare().map_err(|error| unusable(&error))?;
            let mut config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
            // 14 kB of room for tickets of 256 servers.
            config.resumption = Resumption::disabled();
            return Ok(config);
        }
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|(made, ..)| made.elapsed() < TLS_SHARED);
        if let Some((_, _, config)) = shared.iter().find(|(_, trust, _)| trust == self) {
            return Ok(config.clone());
        }
        let config = self.config().map_err(|error| unusable(&error))?;
        shared.push((Instant::now(), self.clone(), config.clone()));
        Ok(config)
    }

    fn config(&self) -> Result<ClientConfig, rustls::Error> {
        let verifier = Verifier::new_with_extra_roots(self.roots.iter().cloned(), provider())?;
        let builder = bare()?.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?,
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn bare() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()
}

fn unusable(error: &rustls::Error) -> Problem {
    match error {
        // The verifier has no other word for it.
        rustls::Error::General(_) => Problem::new("TLS cannot be set up: this machine has no CA certificates")
            .with_remedy("install the package ca-certificates, or name the CA of the server in ca_file"),
        error => Problem::new(format!("TLS cannot be set up on this machine: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::transport::file::Content;

    fn files(folder: &Path, ca: Option<&str>, client: Option<(&str, &str)>) -> TlsFiles {
        let file = |key, name: &str, content| NamedFile::new(key, folder.join(name), content);
        TlsFiles {
            ca: ca.map(|name| file("ca_file", name, Content::Certificates)),
            client: client.map(|(certificate, key)| ClientFiles {
                certificate: file("client_cert_file", certificate, Content::Certificates),
                key: file("client_key_file", key, Content::PrivateKey),
            }),
        }
    }

    #[test]
    fn each_file_that_does_not_hold_what_its_key_says_is_named_without_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let certificate = CertificateParams::new(vec!["client".to_owned()]).unwrap().self_signed(&key).unwrap();
        write("cert.pem", &certificate.pem());
        write("key.pem", &key.serialize_pem());
        write("other.pem", &other.serialize_pem());
        write("empty.pem", "");
        write("wrong.pem", "-----BEGIN CERTIFICATE-----\nNGNhOWFyeQ==\n-----END CERTIFICATE-----\n");
        write("broken.pem", "-----BEGIN CERTIFICATE-----\n4ca9ary!\n");
        let read = |ca, client| files(folder.path(), ca, client).read();
        assert_eq!(read(None, None), Ok(Trust::default()));
        let trust = read(Some("cert.pem"), Some(("cert.pem", "key.pem"))).unwrap();
        assert_eq!(read(Some("cert.pem"), Some(("cert.pem", "key.pem"))), Ok(trust.clone()), "nothing has changed");
        assert_ne!(read(Some("cert.pem"), None), Ok(trust));
        for (ca, client, words) in [
            (Some("key.pem"), None, "key.pem holds no certificate in PEM; → certificates that begin with"),
            (Some("empty.pem"), None, "empty.pem holds no certificate in PEM"),
            (Some("broken.pem"), None, "broken.pem holds no certificate in PEM"),
            (
                Some("wrong.pem"),
                None,
                "wrong.pem holds a certificate that cannot be trusted as a CA; → the certificate",
            ),
            (Some("absent.pem"), None, "absent.pem cannot be read (entity not found)"),
            (
                None,
                Some(("cert.pem", "cert.pem")),
                "cert.pem holds no private key in PEM; → a key without a passphrase",
            ),
            (None, Some(("key.pem", "key.pem")), "key.pem holds no certificate in PEM"),
            (
                None,
                Some(("cert.pem", "other.pem")),
                "cert.pem; → client_cert_file and client_key_file of one certificate",
            ),
        ] {
            let error = read(ca, client).unwrap_err().to_string();
            assert!(error.contains(words) && error.lines().count() == 1, "{words}: {error}");
            assert!(!error.contains("4ca9ary") && !error.contains("PRIVATE KEY-----\n"), "{error}");
        }
    }

    #[test]
    fn plain_http_needs_no_certificates_of_the_machine() {
        let (plain, tls) = (Url::parse("http://127.0.0.1:1").unwrap(), Url::parse("https://127.0.0.1:1").unwrap());
        assert!(Trust::default().config_for(&plain).unwrap().alpn_protocols.is_empty());
        assert_eq!(Trust::default().config_for(&tls).unwrap().alpn_protocols, [b"http/1.1".to_vec()]);
        let without = unusable(&rustls::Error::General("No CA certificates were loaded from the system".to_owned()));
        assert!(without.to_string().contains("; → install the package ca-certificates"), "{without}");
    }
}
