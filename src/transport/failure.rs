//! What a failed request is called, and what to do about it. The texts of the libraries may hold URLs and words of a
//! server, so none of them is repeated.

use std::error::Error;
use std::io::{self, ErrorKind};

use rustls::{AlertDescription, CertificateError};
use url::Url;

use super::proxy::{Answer, Proxy};
use crate::directory::Problem;

/// How the error of a CONNECT begins. Its type is private to the library, so its text has to tell.
const TUNNEL: &str = "tunnel error: ";
/// What follows if the proxy answered, and the answer was neither 200 nor 407. The library does not tell which it was.
const NOT_CONNECTED: [&str; 2] = ["unsuccessful", "proxy response headers too long"];
/// The remedies for a proxy.
const PERMIT_CONNECT: &str = "ask the operator of the proxy to permit CONNECT to this host and port";
const A_PROXY: &str = "check that an HTTP proxy listens there";

/// How much of an answer had arrived when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    Nothing,
    PartOfBody,
}

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What went wrong, in our words, with a remedy if a person can act.
    pub problem: Problem,
    /// True if requests fail until a person changes something. Otherwise the server or the network may come back.
    pub needs_person: bool,
}

impl Failed {
    fn for_now(problem: impl Into<Problem>) -> Failed {
        Failed { problem: problem.into(), needs_person: false }
    }

    fn for_good(problem: impl Into<Problem>) -> Failed {
        Failed { problem: problem.into(), needs_person: true }
    }
}

/// As [`failure`], for a request to `url`. If the proxy on the way did not connect, the proxy is asked why. That takes
/// [`super::proxy::ANSWER_WAIT`] at most.
pub async fn looked_into(error: &reqwest::Error, received: Received, through: Option<&Proxy>, url: &Url) -> Failed {
    let failed = failure(error, received, through);
    let Some(proxy) = through.filter(|_| tunnel_error(error).is_some_and(|text| NOT_CONNECTED.contains(&&*text)))
    else {
        return failed;
    };
    proxy.answer(url).await.and_then(|answer| of_answer(answer, proxy)).unwrap_or(failed)
}

/// What went wrong. `through`: the proxy on the way.
pub fn failure(error: &reqwest::Error, received: Received, through: Option<&Proxy>) -> Failed {
    let in_body = received == Received::PartOfBody || error.is_body() || error.is_decode();
    if let Some(failed) = through.filter(|_| error.is_connect()).and_then(|proxy| of_proxy(error, proxy)) {
        return failed;
    }
    if error.is_timeout() {
        return Failed::for_now("the server did not answer in time");
    }
    if error.is_dns() {
        return Failed::for_now("the host name cannot be resolved");
    }
    if let Some(error) = tls_error(error) {
        return of_tls(error);
    }
    let what = if is_caused_by(error, &[ErrorKind::ConnectionRefused]) {
        "nothing listens at this address (connection refused)"
    } else if error.is_connect() {
        "no connection to the server"
    } else if in_body && causes(error).any(is_end_of_connection) {
        "the connection was closed in the middle of the body"
    } else if error.is_decode() {
        "the body cannot be decompressed"
    } else {
        "the connection broke"
    };
    Failed::for_now(what)
}

fn of_proxy(error: &reqwest::Error, proxy: &Proxy) -> Option<Failed> {
    let address = proxy.address();
    let tunnel = tunnel_error(error);
    let failed = match tunnel.as_deref() {
        Some("proxy authorization required") => of_login(proxy),
        Some(text) if NOT_CONNECTED.contains(&text) => Failed::for_now(
            Problem::new(format!("the proxy {address} refuses the connection to the server"))
                .with_remedy(PERMIT_CONNECT),
        ),
        // A proxy that is starting does this too.
        Some("unexpected end of file" | "io error establishing tunnel") => {
            Failed::for_now(Problem::new(format!("the proxy {address} closed the connection")).with_remedy(A_PROXY))
        }
        _ if error.is_timeout() => Failed::for_now(
            Problem::new(format!("no connection through the proxy {address} in time"))
                .with_remedy("check the address of the proxy, and that it reaches the server"),
        ),
        _ if error.is_dns() => Failed::for_now(
            Problem::new(format!("the host name of the proxy {address} cannot be resolved"))
                .with_remedy("check the address of the proxy"),
        ),
        _ if is_caused_by(error, &[ErrorKind::ConnectionRefused]) => Failed::for_now(
            Problem::new(format!("nothing listens at the proxy {address} (connection refused)"))
                .with_remedy("check the address of the proxy, and that it runs"),
        ),
        // The tunnel is there: what follows is between client and server.
        None => return None,
        Some(_) => Failed::for_now(
            Problem::new(format!("no connection to the proxy {address}"))
                .with_remedy("check the address of the proxy, and that it runs"),
        ),
    };
    Some(failed)
}

fn of_login(proxy: &Proxy) -> Failed {
    let address = proxy.address();
    Failed::for_good(if proxy.has_login() {
        Problem::new(format!("the proxy {address} refuses its credentials (HTTP 407)"))
            .with_remedy("check proxy_username and proxy_password_file, or the variable HTTPS_PROXY")
    } else {
        Problem::new(format!("the proxy {address} asks for credentials (HTTP 407)"))
            .with_remedy("proxy_username, and proxy_password_env or proxy_password_file")
    })
}

/// What the answer to a CONNECT means; `None` if it says nothing about what failed before.
fn of_answer(answer: Answer, proxy: &Proxy) -> Option<Failed> {
    let address = proxy.address();
    Some(match answer {
        Answer::NotHttp => {
            Failed::for_good(Problem::new(format!("no HTTP proxy listens at {address}")).with_remedy(A_PROXY))
        }
        Answer::Http(407) => of_login(proxy),
        Answer::Http(status @ (400 | 404 | 405 | 501)) => Failed::for_good(
            Problem::new(format!("the proxy {address} does not take CONNECT (HTTP {status})")).with_remedy(A_PROXY),
        ),
        Answer::Http(status @ (408 | 429 | 500..)) => Failed::for_now(
            Problem::new(format!("the proxy {address} has no connection to the server (HTTP {status})"))
                .with_remedy("check the host and the port of the URL, and that the proxy reaches them"),
        ),
        Answer::Http(status @ 300..) => Failed::for_good(
            Problem::new(format!("the proxy {address} refuses the connection to the server (HTTP {status})"))
                .with_remedy(PERMIT_CONNECT),
        ),
        Answer::Http(_) => return None,
    })
}

fn of_tls(error: &rustls::Error) -> Failed {
    let (what, remedy) = match error {
        rustls::Error::InvalidCertificate(error) => return Failed::for_good(of_certificate(error)),
        rustls::Error::NoCertificatesPresented => {
            ("the server shows no TLS certificate", "check the host name and the port of the URL")
        }
        rustls::Error::AlertReceived(alert) if is_about_client(*alert) => (
            "the server asks for a TLS certificate of this client, or refuses the one it got",
            "client_cert_file and client_key_file name a certificate that the server accepts",
        ),
        rustls::Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            ("the server has no TLS certificate for this host name", "check the host name of the URL")
        }
        rustls::Error::InvalidMessage(_) => {
            ("the server does not speak TLS at this port", "check the port of the URL, and whether it is an https port")
        }
        error => {
            let problem = Problem::new("the TLS handshake failed").with_remedy(
                "check that the server offers TLS 1.2 or 1.3, and whether it asks for a certificate (client_cert_file)",
            );
            // Anything else may be an accident of the server, e.g. the alert `internal_error`.
            return Failed { problem, needs_person: has_nothing_in_common(error) };
        }
    };
    Failed::for_good(Problem::new(what).with_remedy(remedy))
}

/// Client and server share no version, no cipher or no other parameter.
fn has_nothing_in_common(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::PeerIncompatible(_) => true,
        rustls::Error::AlertReceived(alert) => matches!(
            alert,
            AlertDescription::HandshakeFailure
                | AlertDescription::ProtocolVersion
                | AlertDescription::InsufficientSecurity
                | AlertDescription::NoApplicationProtocol
        ),
        _ => false,
    }
}

fn of_certificate(error: &CertificateError) -> Problem {
    let (what, remedy) = match error {
        // A root of the same name and another key does not make the signature good.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            "the server's TLS certificate is from a CA that this machine does not trust",
            "ca_file names a file with the certificate of that CA, or install it on this machine",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            "the server's TLS certificate is for another host name",
            "use a host name of the certificate in the URL, or add this name to the certificate",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "the server's TLS certificate has expired",
            "the server needs a new one; also check the clock of this machine",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("the server's TLS certificate is not valid yet", "check the clock of this machine and that of the server")
        }
        CertificateError::Revoked => ("the server's TLS certificate is revoked", "the server needs a new one"),
        _ => (
            "the server's TLS certificate cannot be used",
            "the server needs a certificate of X.509 version 3 that is made for servers, from a CA that ca_file names",
        ),
    };
    Problem::new(what).with_remedy(remedy)
}

/// Alerts that a server sends about the certificate of a client (RFC 8446 §6.2).
fn is_about_client(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    )
}

/// Every error below `error`. The source of an `io::Error` is the source of what it wraps, so that what it wraps has to
/// be asked for.
pub fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| match cause.downcast_ref::<io::Error>().map(io::Error::get_ref) {
        Some(Some(wrapped)) => Some(wrapped),
        _ => cause.source(),
    })
}

fn is_io(cause: &(dyn Error + 'static), kinds: &[ErrorKind]) -> bool {
    cause.downcast_ref::<io::Error>().is_some_and(|error| kinds.contains(&error.kind()))
}

fn is_caused_by(error: &reqwest::Error, kinds: &[ErrorKind]) -> bool {
    causes(error).any(|cause| is_io(cause, kinds))
}

fn tls_error(error: &reqwest::Error) -> Option<&rustls::Error> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// What the library says of a CONNECT that failed.
fn tunnel_error(error: &reqwest::Error) -> Option<String> {
    causes(error).find_map(|cause| cause.to_string().strip_prefix(TUNNEL).map(str::to_owned))
}

fn is_end_of_connection(cause: &(dyn Error + 'static)) -> bool {
    let ended = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    // The error of hyper, which reqwest does not export, has no type to ask for.
    is_io(cause, &ended) || cause.to_string().contains("connection closed")
}
