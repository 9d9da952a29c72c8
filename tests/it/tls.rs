//! A private CA, servers behind TLS that ask for credentials and forward to a real service, and a proxy that is asked to
//! CONNECT. All of them listen on loopback and end when they are dropped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Bytes of the head of a CONNECT; real ones are shorter.
const HEAD_BYTES_MAX: usize = 8 << 10;

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A CA that no machine trusts.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

/// When a certificate holds.
#[derive(Clone, Copy)]
pub enum Holds {
    Now,
    NotAnyMore,
    NotYet,
}

/// A certificate and its key.
pub struct Certificate {
    pub pem: String,
    pub key_pem: String,
    der: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Ca {
    pub fn new() -> Ca {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        // CAs of the same name would be told apart by their keys alone.
        static CAS: AtomicU32 = AtomicU32::new(0);
        let name = format!("CA {}", CAS.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ca(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these host names and addresses. It serves servers and clients.
    pub fn certificate(&self, names: &[&str], holds: Holds) -> Certificate {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("host names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        match holds {
            Holds::Now => {}
            Holds::NotAnyMore => params.not_after = rcgen::date_time_ymd(2020, 1, 1),
            Holds::NotYet => params.not_before = rcgen::date_time_ymd(4000, 1, 1),
        }
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.0).expect("a certificate");
        Certificate {
            pem: signed.pem(),
            key_pem: key.serialize_pem(),
            der: signed.der().clone(),
            key: key.serialize_der(),
        }
    }
}

impl Certificate {
    /// The TLS of a server with this certificate. `clients`: the CA whose client certificates it demands.
    pub fn server(&self, clients: Option<&Ca>) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                roots.add(ca.0.der().clone()).expect("a CA");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
                builder.with_client_cert_verifier(verifier.expect("a verifier"))
            }
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        builder.with_single_cert(vec![self.der.clone()], key).expect("a certificate with its key")
    }
}

/// Writes a file that only its owner may read, and returns its path.
pub fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    path
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.expect("a connection");
            // A client that does not trust the server ends the handshake.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// What a front demands in the header `authorization`; `None`: nothing.
type Demanded = Arc<Mutex<Option<String>>>;

/// A server behind TLS. It lets requests with the right `authorization` through to a service that speaks plain HTTP.
pub struct Front {
    pub address: SocketAddr,
    demanded: Demanded,
    _task: JoinSet<()>,
}

#[derive(Clone)]
struct Forward {
    to: String,
    demanded: Demanded,
    client: reqwest::Client,
}

impl Front {
    /// `to`: scheme, host and port of the service behind it.
    pub async fn start(tls: ServerConfig, to: &str, demanded: Option<&str>) -> Front {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let demanded: Demanded = Arc::new(Mutex::new(demanded.map(str::to_owned)));
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let state = Forward { to: to.to_owned(), demanded: demanded.clone(), client };
        let router = Router::new().fallback(forward).with_state(state);
        let listener = TlsListener { listener, acceptor: TlsAcceptor::from(Arc::new(tls)) };
        let mut task = JoinSet::new();
        task.spawn(async { axum::serve(listener, router).await.expect("it serves until it is dropped") });
        Front { address, demanded, _task: task }
    }

    pub fn demand(&self, authorization: &str) {
        *self.demanded.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization.to_owned());
    }
}

async fn forward(
    State(state): State<Forward>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let demanded = state.demanded.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let given = headers.get("authorization").and_then(|value| value.to_str().ok());
    if demanded.is_some() && given != demanded.as_deref() {
        return answer(StatusCode::UNAUTHORIZED, Bytes::new());
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = state.client.request(method, format!("{}{path}", state.to)).body(body);
    for name in ["authorization", "content-type", "accept"] {
        if let Some(value) = headers.get(name) {
            request = request.header(name, value);
        }
    }
    let response = request.send().await.expect("the service behind the front answers");
    let status = response.status();
    answer(status, response.bytes().await.expect("a body"))
}

fn answer(status: StatusCode, body: Bytes) -> Response<Body> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Body::from(body)).expect("a response")
}

/// What a proxy does with a CONNECT.
#[derive(Clone, Debug)]
pub enum Policy {
    /// Connects, whatever the host is called, to this address.
    Connects(SocketAddr),
    /// The same for clients with this `proxy-authorization`; 407 for others.
    Asks(String, SocketAddr),
    /// This status for clients with this `proxy-authorization`; 407 for others.
    AsksAndRefuses(String, u16),
    Refuses(u16),
    /// Closes the connection without an answer.
    HangsUp,
}

/// A CONNECT as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `host:port`.
    pub target: String,
    /// The whole head of the request.
    pub head: String,
}

/// A proxy that knows only CONNECT.
pub struct ConnectProxy {
    pub address: SocketAddr,
    policy: Arc<Mutex<Policy>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    _task: JoinSet<()>,
}

impl ConnectProxy {
    pub async fn start(policy: Policy) -> ConnectProxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let (policy, asked) = (Arc::new(Mutex::new(policy)), Arc::new(Mutex::new(Vec::new())));
        let (current, seen) = (policy.clone(), asked.clone());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let policy = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // A connection that breaks is noticed by the client.
                let seen = seen.clone();
                connections.spawn(async move { serve(stream, policy, &seen).await.unwrap_or(()) });
            }
        });
        ConnectProxy { address, policy, asked, _task: task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set(&self, policy: Policy) {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    /// What it was asked since the last call.
    pub fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The hosts and ports that it was asked for since the last call.
    pub fn targets(&self) -> Vec<String> {
        self.take().into_iter().map(|asked| asked.target).collect()
    }
}

async fn serve(mut client: TcpStream, policy: Policy, asked: &Mutex<Vec<Asked>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        // Byte by byte, because what follows the head belongs to the tunnel.
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).map(str::to_owned);
    let Some(target) = target else {
        asked.lock().unwrap_or_else(PoisonError::into_inner).push(Asked { target: "no CONNECT".to_owned(), head });
        return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n").await;
    };
    let authorization = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("proxy-authorization").then(|| value.trim().to_owned())
    });
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(Asked { target, head });
    let upstream = match policy {
        Policy::Connects(upstream) => upstream,
        Policy::Asks(demanded, upstream) if authorization.as_ref() == Some(&demanded) => upstream,
        Policy::AsksAndRefuses(demanded, status) if authorization.as_ref() == Some(&demanded) => {
            return refuse(&mut client, status).await;
        }
        Policy::Asks(..) | Policy::AsksAndRefuses(..) => {
            let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\n\
                           proxy-authenticate: Basic realm=\"tests\"\r\ncontent-length: 0\r\n\r\n";
            return client.write_all(refusal.as_bytes()).await;
        }
        Policy::Refuses(status) => return refuse(&mut client, status).await,
        Policy::HangsUp => return Ok(()),
    };
    let mut server = TcpStream::connect(upstream).await?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

async fn refuse(client: &mut TcpStream, status: u16) -> std::io::Result<()> {
    let refusal = format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n");
    client.write_all(refusal.as_bytes()).await
}
