//! What is wrong with a broker's certificate. OpenSSL, which librdkafka uses, says only that it refuses the certificate,
//! so the broker is asked once more, with rustls, whose errors are typed.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore};

use crate::directory::Problem;

/// For each step: to connect, and for each answer of the broker.
const STEP_WAIT: Duration = Duration::from_secs(2);
/// Bytes of a file with certificates of CAs. The bundle of a system has about 200 KB.
const CA_BYTES_MAX: u64 = 16 << 20;

/// The certificates of the CAs that a client trusts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trusted<'a> {
    /// Those of the machine.
    System,
    /// Those of a file (`ssl.ca.location`).
    File(&'a str),
    /// These, in PEM (`ssl.ca.pem`).
    Pem(&'a str),
}

/// What is wrong with the certificate of `broker` (`host:port`). `None` if that cannot be found out. Blocks for a few
/// seconds at most.
pub fn problem(broker: &str, trusted: Trusted<'_>) -> Option<Problem> {
    let verifier = match verifier(trusted) {
        Ok(verifier) => verifier,
        Err(problem) => return Some(problem),
    };
    match shake_hands(broker, verifier)? {
        CertificateError::UnknownIssuer => Some(
            Problem::new("the broker's TLS certificate is issued by a CA that is not trusted here")
                .with_remedy("\"ssl.ca.location\" in [kafka.properties] names a file with the certificate of that CA"),
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Some(Problem::new("the broker's TLS certificate is for another host name").with_remedy(
                "name the broker in kafka.brokers, and in its advertised.listeners, as in its certificate",
            ))
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Some(
            Problem::new("the broker's TLS certificate has expired")
                .with_remedy("renew it on the broker, or set the clock of this machine"),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Some(
            Problem::new("the broker's TLS certificate is not valid yet")
                .with_remedy("set the clock of this machine, or that of the issuer"),
        ),
        CertificateError::Revoked => {
            Some(Problem::new("the broker's TLS certificate is revoked").with_remedy("renew it on the broker"))
        }
        _ => None,
    }
}

/// # Errors
/// There are no certificates of CAs.
fn verifier(trusted: Trusted<'_>) -> Result<Arc<dyn ServerCertVerifier>, Problem> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let pem = match trusted {
        Trusted::System => {
            let none = || {
                Problem::new("this machine has no certificates of CAs").with_remedy(
                    "install the package ca-certificates, or set \"ssl.ca.location\" in [kafka.properties]",
                )
            };
            let system = rustls_platform_verifier::Verifier::new(provider).map_err(|_| none())?;
            return Ok(Arc::new(system));
        }
        Trusted::File(path) => read(Path::new(path)).map_err(|error| {
            Problem::new(format!("\"ssl.ca.location\" cannot be read ({})", error.kind()))
                .with_remedy("the path of a file with certificates in PEM")
        })?,
        Trusted::Pem(text) => text.as_bytes().to_vec(),
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    let none = || {
        Problem::new("\"ssl.ca.location\" holds no certificate")
            .with_remedy("the path of a file with certificates in PEM")
    };
    if added == 0 {
        return Err(none());
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    Ok(verifier.map_err(|_| none())?)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(CA_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What rustls has against the certificate; `None` if it has nothing against it, or does not get that far.
fn shake_hands(broker: &str, verifier: Arc<dyn ServerCertVerifier>) -> Option<CertificateError> {
    let host = broker.rsplit_once(':')?.0.trim_matches(['[', ']']);
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .ok()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let mut tls = ClientConnection::new(Arc::new(config), ServerName::try_from(host.to_owned()).ok()?).ok()?;
    let mut connection =
        broker.to_socket_addrs().ok()?.find_map(|address| TcpStream::connect_timeout(&address, STEP_WAIT).ok())?;
    connection.set_read_timeout(Some(STEP_WAIT)).ok()?;
    connection.set_write_timeout(Some(STEP_WAIT)).ok()?;
    let error = tls.complete_io(&mut connection).err()?;
    // The alert, so that the broker does not wait. What becomes of it does not matter.
    drop(tls.write_tls(&mut connection));
    drop(connection.flush());
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(error) => Some(error.clone()),
        _ => None,
    }
}
