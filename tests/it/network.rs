//! Directories and the registry as companies have them: behind TLS of a private CA, with client certificates and
//! credentials, and through a proxy.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use scimtail::avro::registry::{Access, Login};
use scimtail::avro::{Registry, schema};
use scimtail::config::Config;
use scimtail::connect::{AnyDirectory, Connection};
use scimtail::demo::directory::{SimulatedDirectory, Vendor};
use scimtail::directory::{AttributeList, Kind, Problem, ReasonCode};
use scimtail::log::Topic;
use scimtail::schedule::now_millis;
use scimtail::scim::{
    Client, ClientProof, Credential, Patience, Profile, Reach, ReadError, Scheme, ScimDirectory, Sources, TokenParams,
};
use scimtail::service::ServiceError;
use scimtail::transport::file::{Content, NamedFile};
use scimtail::transport::proxy::Proxy;
use scimtail::transport::tls::{ClientFiles, TlsFiles};
use scimtail::transport::{Transport, Trust};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use url::Url;

use crate::program::{Ended, Program};
use crate::services::{services, unique_prefix};
use crate::tls::{Ca, Certificate, ConnectProxy, Front, Holds, Policy, write};

const TOKEN: &str = "network-token-canary";
/// base64 of `reader:registry-canary`.
const BASIC: &str = "Basic cmVhZGVyOnJlZ2lzdHJ5LWNhbmFyeQ==";
const PASSWORD: &str = "registry-canary";

async fn directory() -> SimulatedDirectory {
    SimulatedDirectory::start(Vendor::Chargebee, TOKEN, 5, SystemTime::now).await.expect("a directory")
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> String {
    Url::parse(url).expect("a URL").origin().ascii_serialization()
}

/// What a client is made with, from files as the configuration names them.
fn trust(folder: &Path, ca: &str, client: Option<&Certificate>) -> Trust {
    let certificates = |key, path| NamedFile::new(key, path, Content::Certificates);
    let client = client.map(|certificate| ClientFiles {
        certificate: certificates("client_cert_file", write(folder, "client.pem", &certificate.pem)),
        key: NamedFile::new(
            "client_key_file",
            write(folder, "client-key.pem", &certificate.key_pem),
            Content::PrivateKey,
        ),
    });
    TlsFiles { ca: Some(certificates("ca_file", write(folder, "ca.pem", ca))), client }.read().expect("good files")
}

/// One request for a list, with no other try.
async fn list(base_url: &str, transport: &Transport) -> Result<usize, ReadError> {
    let reach = Reach { allow_private: false, transport: transport.clone() };
    let credential = Credential::bearer(TOKEN.to_owned().into()).expect("a token");
    let patience = Patience { tries: 1, ..Patience::default() };
    let profile = Profile::named("chargebee").expect("a profile");
    let base_url = Url::parse(base_url).expect("a URL");
    let client = Client::with_patience(base_url, credential, profile, &reach, now_millis, patience)?;
    let directory = ScimDirectory::new(client, AttributeList::default());
    directory.first_page(Kind::User).await.map(|page| page.rows.len())
}

/// Why the directory cannot be read, and who ends that.
async fn refusal(base_url: &str, transport: &Transport) -> (Ends, String) {
    let error = list(base_url, transport).await.expect_err("it is refused");
    let ends = match error.code {
        ReasonCode::Unreachable => Ends::ByItself,
        ReasonCode::NotConnectable => Ends::ByPerson,
        _ => panic!("{error:?}"),
    };
    let text = error.to_string();
    assert!(text.lines().count() == 1 && !text.contains("canary"), "{text}");
    (ends, text)
}

fn registry(url: &str, login: Login, transport: &Transport) -> Registry {
    let access = Access { login, transport: transport.clone() };
    Registry::with_access(url, Arc::new(move || Ok(access.clone()))).expect("a registry")
}

/// Who ends a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// A person has to act: exit code 78.
    ByPerson,
    /// The network or the server may come back: exit code 69.
    ByItself,
}

/// Why the registry cannot be reached, and who ends that.
async fn no_registry(url: &str, transport: &Transport) -> (Ends, String) {
    match registry(url, Login::None, transport).probe().await {
        Err(ServiceError::Refused(problem)) => (Ends::ByPerson, problem.to_string()),
        Err(ServiceError::Unreachable(problem)) => (Ends::ByItself, problem.to_string()),
        other => panic!("{other:?}"),
    }
}

/// The first of some texts that has these words, else the last.
async fn first_with(words: &str, mut said: impl AsyncFnMut() -> (Ends, String)) -> (Ends, String) {
    const TRIES: usize = 20;
    for _ in 1..TRIES {
        let last = said().await;
        if last.1.contains(words) {
            return last;
        }
    }
    said().await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_a_certificate_has_its_own_sentence_and_remedy() {
    let (ca, other, folder) = (Ca::new(), Ca::new(), tempfile::tempdir().expect("a folder"));
    let service = directory().await;
    let to = origin(&service.base_url());
    let trusted = Transport { trust: trust(folder.path(), &ca.pem(), None), proxy: None };
    let untrusting = Transport { trust: trust(folder.path(), &other.pem(), None), proxy: None };
    let good = ca.certificate(&["127.0.0.1", "localhost"], Holds::Now);
    let untrusted = "TLS certificate is from a CA that this machine does not trust; → ca_file names a file";
    // A server that ends the connection right after its alert may be faster than the alert: then the client sees only a
    // broken connection. One of some tries sees the alert.
    let no_client =
        "the server asks for a TLS certificate of this client, or refuses the one it got; → client_cert_file";
    for (server, transport, words) in [
        (good.server(None), &untrusting, untrusted),
        (
            ca.certificate(&["other.example"], Holds::Now).server(None),
            &trusted,
            "TLS certificate is for another host name; → use a host name of the certificate",
        ),
        (
            ca.certificate(&["127.0.0.1"], Holds::NotAnyMore).server(None),
            &trusted,
            "TLS certificate has expired; → the server needs a new one; also check the clock",
        ),
        (
            ca.certificate(&["127.0.0.1"], Holds::NotYet).server(None),
            &trusted,
            "TLS certificate is not valid yet; → check the clock of this machine",
        ),
        (good.server(Some(&ca)), &trusted, no_client),
    ] {
        let front = Front::start(server, &to, None).await;
        let url = format!("https://{}", front.address);
        let base_url = format!("{url}/scim/v2");
        let (ends, said) = first_with(words, async || refusal(&base_url, transport).await).await;
        assert!(said.contains(words), "{words}: {said}");
        assert_eq!(ends, Ends::ByPerson, "{said}");
        let (ends, said) = first_with(words, async || no_registry(&url, transport).await).await;
        assert!(said.starts_with(&format!("registry {url} cannot be reached: ")) && said.contains(words), "{said}");
        assert_eq!(ends, Ends::ByPerson, "{said}");
    }
    let (ends, plain) = no_registry(&to.replace("http://", "https://"), &trusted).await;
    assert!(plain.contains("the server does not speak TLS at this port; → check the port"), "{plain}");
    assert_eq!(ends, Ends::ByPerson);

    let front = Front::start(good.server(None), &to, None).await;
    assert!(list(&format!("https://{}/scim/v2", front.address), &trusted).await.expect("it is trusted") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_shown_to_a_server_that_asks_for_one() {
    let (ca, other, folder) = (Ca::new(), Ca::new(), tempfile::tempdir().expect("a folder"));
    let service = directory().await;
    let server = ca.certificate(&["127.0.0.1"], Holds::Now).server(Some(&ca));
    let front = Front::start(server, &origin(&service.base_url()), None).await;
    let url = format!("https://{}/scim/v2", front.address);
    let with = |issuer: &Ca| {
        let client = issuer.certificate(&["client"], Holds::Now);
        Transport { trust: trust(folder.path(), &ca.pem(), Some(&client)), proxy: None }
    };
    assert!(list(&url, &with(&ca)).await.expect("the server accepts it") > 0);
    let (words, unknown) = ("or refuses the one it got; → client_cert_file and client_key_file", with(&other));
    let (ends, said) = first_with(words, async || refusal(&url, &unknown).await).await;
    assert!(said.contains(words), "{said}");
    assert_eq!(ends, Ends::ByPerson, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_an_unknown_host_and_no_answer_are_told_apart() {
    let direct = Transport::default();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    // It takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("its address");
    for (url, words) in [
        (format!("http://{address}"), "the server did not answer in time; → check registry.url"),
        (format!("http://{closed}"), "nothing listens at this address (connection refused); → check registry.url"),
        ("http://registry.invalid".to_owned(), "the host name cannot be resolved; → check registry.url"),
    ] {
        let (ends, said) = no_registry(&url, &direct).await;
        assert!(said.starts_with(&format!("registry {url} cannot be reached: ")) && said.contains(words), "{said}");
        assert_eq!(ends, Ends::ByItself, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_https_goes_through_the_proxy_which_sees_neither_token_nor_path() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().expect("a folder"));
    let service = directory().await;
    // No machine resolves this name: only the proxy knows where it is.
    let server = ca.certificate(&["vendor.invalid"], Holds::Now).server(None);
    let front = Front::start(server, &origin(&service.base_url()), Some(&format!("Bearer {TOKEN}"))).await;
    let proxy = ConnectProxy::start(Policy::Connects(front.address)).await;
    let url = Url::parse(&proxy.url()).expect("a URL");
    let through = Transport { trust: trust(folder.path(), &ca.pem(), None), proxy: Some(Proxy::new(url, None)) };

    assert!(list("https://vendor.invalid/scim/v2", &through).await.expect("the proxy connects") > 0);
    let asked = proxy.take();
    assert_eq!(asked.iter().map(|asked| asked.target.as_str()).collect::<Vec<_>>(), ["vendor.invalid:443"]);
    assert!(!asked[0].head.contains(TOKEN) && !asked[0].head.contains("/scim"), "{asked:?}");

    // Plain HTTP on loopback is direct.
    assert!(list(&service.base_url(), &through).await.expect("it is direct") > 0);
    // What may not be asked directly may not be asked through the proxy either.
    for (url, words) in [
        ("https://10.0.0.1/scim/v2", "the URL leads to a private address"),
        ("https://169.254.169.254/scim/v2", "the URL leads to a link-local, metadata"),
        ("https://[fd00:ec2::254]/scim/v2", "the URL leads to a link-local, metadata"),
        ("https://168.63.129.16/scim/v2", "the URL leads to a link-local, metadata"),
        ("https://[fd00::1]/scim/v2", "the URL leads to a private address"),
        ("https://[fe80::1]/scim/v2", "the URL leads to a link-local, metadata"),
        ("https://[::ffff:169.254.169.254]/scim/v2", "the URL leads to a link-local, metadata"),
        ("http://vendor.invalid/scim/v2", "only https is used off this machine"),
        // The library reaches no server through a proxy whose URL holds an IPv6 address.
        ("https://[2606:4700::1111]/scim/v2", "[2606:4700::1111] is an IPv6 address, and the proxy"),
    ] {
        let (ends, said) = refusal(url, &through).await;
        assert!(said.contains(words), "{url}: {said}");
        assert_eq!(ends, Ends::ByPerson, "{said}");
    }
    let literal = "https://[2606:4700::1111]";
    let access = Access { login: Login::None, transport: through.clone() };
    let Err(ServiceError::Refused(problem)) = Registry::with_access(literal, Arc::new(move || Ok(access.clone())))
    else {
        panic!("a registry behind the proxy");
    };
    let way = format!("the proxy {} is only used for host names; → a host name in the URL, or", proxy.address);
    assert!(problem.to_string().contains(&way), "{problem}");
    assert_eq!(proxy.targets(), [] as [&str; 0]);

    // NO_PROXY: the name is resolved on this machine, in vain.
    let except = Proxy::from_variable(&proxy.url(), "vendor.invalid").expect("a proxy");
    let direct = Transport { proxy: Some(except), ..through.clone() };
    let (ends, said) = refusal("https://vendor.invalid/scim/v2", &direct).await;
    assert!(said.contains("the host name cannot be resolved"), "{said}");
    assert_eq!(ends, Ends::ByItself, "{said}");
    assert_eq!(proxy.targets(), [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_of_a_proxy_has_its_own_sentence_and_remedy() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().expect("a folder"));
    let service = directory().await;
    let server = ca.certificate(&["vendor.invalid"], Holds::Now).server(None);
    let front = Front::start(server, &origin(&service.base_url()), None).await;
    // base64 of `user:p%41-canary`.
    let asks = |upstream| Policy::Asks("Basic dXNlcjpwJTQxLWNhbmFyeQ==".to_owned(), upstream);
    let proxy = ConnectProxy::start(asks(front.address)).await;
    let trust = trust(folder.path(), &ca.pem(), None);
    let with = |url: &str, login: Option<(&str, &str)>| {
        let login = login.map(|(username, password)| (username.to_owned(), password.to_owned().into()));
        let proxy = Proxy::new(Url::parse(url).expect("a URL"), login);
        Transport { trust: trust.clone(), proxy: Some(proxy) }
    };
    let url = "https://vendor.invalid/scim/v2";
    // A percent sign is part of the password.
    let right = with(&proxy.url(), Some(("user", "p%41-canary")));
    assert!(list(url, &right).await.expect("the proxy accepts it") > 0);
    assert_eq!(proxy.targets(), ["vendor.invalid:443"]);

    let (address, closed) = (proxy.address, std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
    let closed_address = closed.local_addr().expect("its address");
    drop(closed);
    let anonymous = with(&proxy.url(), None);
    // It takes connections, and does not speak HTTP.
    let other = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let other_address = other.local_addr().expect("its address");
    let mut speaking = JoinSet::new();
    speaking.spawn(async move {
        while let Ok((mut stream, _)) = other.accept().await {
            // Closed with bytes that it has not read, the connection would break before the client has the answer.
            if stream.read(&mut [0; 1 << 10]).await.is_ok() {
                drop(stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n\r\n").await);
            }
        }
    });
    let refuses =
        |status, ends, words: &str| (Some(Policy::Refuses(status)), anonymous.clone(), ends, words.to_owned());
    let same = |transport: &Transport, ends, words: String| (None, transport.clone(), ends, words);
    for (policy, transport, ends, words) in [
        same(
            &anonymous,
            Ends::ByPerson,
            format!("the proxy {address} asks for credentials (HTTP 407); → proxy_username"),
        ),
        same(
            &with(&proxy.url(), Some(("user", "wrong-canary"))),
            Ends::ByPerson,
            format!("the proxy {address} refuses its credentials (HTTP 407); → check proxy_username"),
        ),
        refuses(
            403,
            Ends::ByPerson,
            "refuses the connection to the server (HTTP 403); → ask the operator of the proxy",
        ),
        refuses(405, Ends::ByPerson, "does not take CONNECT (HTTP 405); → check that an HTTP proxy listens there"),
        refuses(502, Ends::ByItself, "has no connection to the server (HTTP 502); → check the host and the port"),
        refuses(503, Ends::ByItself, "has no connection to the server (HTTP 503); → check the host and the port"),
        refuses(504, Ends::ByItself, "has no connection to the server (HTTP 504); → check the host and the port"),
        same(
            &with(&format!("http://{other_address}"), None),
            Ends::ByPerson,
            format!("no HTTP proxy listens at {other_address}; → check that an HTTP proxy listens there"),
        ),
        (
            Some(Policy::HangsUp),
            anonymous.clone(),
            Ends::ByItself,
            format!("the proxy {address} closed the connection; → check"),
        ),
        same(
            &with(&format!("http://{closed_address}"), None),
            Ends::ByItself,
            format!("nothing listens at the proxy {closed_address} (connection refused); → check the address"),
        ),
        same(
            &with("http://proxy.invalid:3128", None),
            Ends::ByItself,
            "the host name of the proxy proxy.invalid:3128 cannot be resolved; → check the address".to_owned(),
        ),
    ] {
        proxy.set(policy.unwrap_or_else(|| asks(front.address)));
        let (by, said) = refusal(url, &transport).await;
        assert!(said.contains(&words), "{words}: {said}");
        assert_eq!(by, ends, "{said}");
        let (by, said) = no_registry("https://vendor.invalid", &transport).await;
        assert!(said.contains(&words), "{words}: {said}");
        assert_eq!(by, ends, "{said}");
    }
    // A proxy that asks for a login gets it with the question too, so that the answer is the one to the request.
    proxy.set(Policy::AsksAndRefuses("Basic dXNlcjpwJTQxLWNhbmFyeQ==".to_owned(), 403));
    let (by, said) = no_registry("https://vendor.invalid", &right).await;
    assert!(said.contains("refuses the connection to the server (HTTP 403)"), "{said}");
    assert_eq!(by, Ends::ByPerson);
    // Behind the tunnel, what is wrong with the server is told as without a proxy.
    proxy.set(Policy::Connects(front.address));
    let (ends, said) = refusal("https://elsewhere.invalid/scim/v2", &anonymous).await;
    assert!(said.contains("TLS certificate is for another host name"), "{said}");
    assert_eq!(ends, Ends::ByPerson, "{said}");
}

/// A client of this token endpoint.
fn oauth2(token_url: Url) -> Scheme {
    let (client_id, params) = ("client".to_owned(), TokenParams::new());
    Scheme::Oauth2 { client_id, token_url, scope: None, params, proof: ClientProof::Secret }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_is_reached_the_same_way_as_its_directory() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().expect("a folder"));
    let service = directory().await;
    let server = ca.certificate(&["login.invalid"], Holds::Now).server(None);
    let front = Front::start(server, &origin(&service.base_url()), None).await;
    let proxy = ConnectProxy::start(Policy::Connects(front.address)).await;
    let url = Url::parse(&proxy.url()).expect("a URL");
    let transport = Transport { trust: trust(folder.path(), &ca.pem(), None), proxy: Some(Proxy::new(url, None)) };
    let reach = Reach { allow_private: false, transport };
    let token_url = Url::parse("https://login.invalid/token").expect("a URL");
    let scheme = oauth2(token_url);
    let sources = Sources { now: now_millis, random: || 1 };
    let credential = Credential::new(scheme, Arc::new(|| Ok("secret-canary".to_owned().into())), &reach, sources);
    // The service behind the front answers, and issues no token.
    let error = credential.expect("a credential").pass().await.err().expect("there is no token");
    assert!(error.code != ReasonCode::Unreachable && error.to_string().contains("token"), "{error}");
    let targets = proxy.targets();
    assert!(!targets.is_empty() && targets.iter().all(|target| target == "login.invalid:443"), "{targets:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_needs_a_person_is_told_from_one_that_may_come_back() {
    let (ca, other, folder) = (Ca::new(), Ca::new(), tempfile::tempdir().expect("a folder"));
    let service = directory().await;
    let to = origin(&service.base_url());
    let front = |certificate: Certificate| {
        let to = to.clone();
        async move { Front::start(certificate.server(None), &to, None).await }
    };
    let (untrusted, elsewhere, expired) = (
        front(other.certificate(&["127.0.0.1"], Holds::Now)).await,
        front(ca.certificate(&["other.example"], Holds::Now)).await,
        front(ca.certificate(&["127.0.0.1"], Holds::NotAnyMore)).await,
    );
    let reach = Reach {
        allow_private: false,
        transport: Transport { trust: trust(folder.path(), &ca.pem(), None), proxy: None },
    };
    let at = |front: &Front| format!("https://{}/token", front.address);
    for (url, words, ends) in [
        (at(&untrusted), "token_url: the server's TLS certificate is from a CA", ReasonCode::NotConnectable),
        (at(&elsewhere), "token_url: the server's TLS certificate is for another", ReasonCode::NotConnectable),
        (at(&expired), "token_url: the server's TLS certificate has expired", ReasonCode::NotConnectable),
        (
            "https://169.254.169.254/token".to_owned(),
            "token_url: the URL leads to a link-local",
            ReasonCode::NotConnectable,
        ),
        ("https://login.invalid/token".to_owned(), "token_url: the host name cannot be", ReasonCode::Unreachable),
        ("http://127.0.0.1:1/token".to_owned(), "token_url: nothing listens", ReasonCode::Unreachable),
    ] {
        let token_url = Url::parse(&url).expect("a URL");
        let scheme = oauth2(token_url);
        let sources = Sources { now: now_millis, random: || 1 };
        let credential = Credential::new(scheme, Arc::new(|| Ok("secret-canary".to_owned().into())), &reach, sources);
        let error = match credential {
            Ok(credential) => credential.pass().await.err().expect("there is no token"),
            Err(error) => error,
        };
        assert!(error.to_string().starts_with(words), "{url}: {error}");
        assert_eq!(error.code, ends, "{url}: {error}");
    }
}

/// The registry of the tests behind TLS. It asks for Basic credentials.
struct Fronted {
    front: Front,
    ca: Ca,
    folder: TempDir,
    path: String,
}

impl Fronted {
    async fn start() -> Fronted {
        let (ca, folder) = (Ca::new(), tempfile::tempdir().expect("a folder"));
        let real = &services().registry;
        let server = ca.certificate(&["127.0.0.1", "registry.invalid"], Holds::Now).server(None);
        let front = Front::start(server, &origin(real), Some(BASIC)).await;
        let path = Url::parse(real).expect("a URL").path().trim_end_matches('/').to_owned();
        write(folder.path(), "ca.pem", &ca.pem());
        write(folder.path(), "password", PASSWORD);
        Fronted { front, ca, folder, path }
    }

    fn url(&self) -> String {
        format!("https://{}{}", self.front.address, self.path)
    }

    fn transport(&self) -> Transport {
        Transport { trust: trust(self.folder.path(), &self.ca.pem(), None), proxy: None }
    }

    /// A configuration of this registry. `lines`: of `[registry]`, in which `FOLDER` is the folder of the files.
    fn program(&self, url: &str, lines: &str) -> Program {
        let lines = lines.replace("FOLDER", &self.folder.path().display().to_string());
        let prefix = unique_prefix("network");
        let text = format!(
            "[kafka]\nbrokers = [\"{}\"]\ntopic_prefix = \"{prefix}\"\npartitions = 2\nreplication = 1\n\
             [registry]\nurl = \"{url}\"\n{lines}\n\
             [[account]]\nname = \"acme\"\nprovider = \"chargebee\"\nbase_url = \"http://127.0.0.1:9/scim/v2\"\n\
             token_env = \"{}\"\n",
            services().bootstrap,
            crate::program::TOKEN_VARIABLE
        );
        Program::with_text(&prefix, TOKEN, &text)
    }
}

/// Runs it at the lowest level of the log, with further variables. No output holds a secret.
async fn run(program: &Program, arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command = program.command(&[&["--log-level", "trace"], arguments].concat());
    for name in ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().expect("the program runs")).await;
    let ended = Ended::from(output.expect("the program was waited for"));
    for secret in ["canary", "cmVhZGVyOnJlZ2lzdHJ5", "PRIVATE KEY"] {
        assert!(!ended.out.contains(secret) && !ended.err.contains(secret), "{arguments:?}: {secret} got out");
    }
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_are_registered_at_a_registry_behind_tls_that_asks_for_credentials() {
    let fronted = Fronted::start().await;
    let url = fronted.url();
    let good = "ca_file = \"FOLDER/ca.pem\"\nusername = \"reader\"\npassword_file = \"FOLDER/password\"";
    let program = fronted.program(&url, good);
    let registered = run(&program, &["schemas", "--register"], &[]).await;
    assert_eq!((registered.code, registered.out.lines().count()), (0, 6), "{}", registered.out);
    // They are in the registry behind the front.
    let direct = Registry::new(&services().registry).expect("a URL");
    for topic in Topic::ALL {
        let subject = schema::subject(&program.prefix, topic);
        assert!(direct.look_up(&subject, schema::text(topic)).await.expect("an answer").is_some(), "{subject}");
    }
    let checked = run(&program, &["check"], &[]).await;
    assert!(checked.out.contains("6 of 6 subjects"), "{}", checked.out);

    write(fronted.folder.path(), "wrong", "wrong-canary");
    for (lines, code, words) in [
        (
            "ca_file = \"FOLDER/ca.pem\"",
            78,
            ["asks for credentials, and none are configured", "→ registry.username with registry.password_file, or"],
        ),
        (
            "ca_file = \"FOLDER/ca.pem\"\nusername = \"reader\"\npassword_file = \"FOLDER/wrong\"",
            78,
            ["the registry refuses the credentials", "→ check registry.username, and registry.password_env or"],
        ),
        (
            "ca_file = \"FOLDER/ca.pem\"\ntoken_file = \"FOLDER/wrong\"",
            78,
            ["the registry refuses the credentials", "→ check registry.token_env or registry.token_file"],
        ),
        (
            "ca_file = \"FOLDER/password\"\ntoken_file = \"FOLDER/wrong\"",
            78,
            ["holds no certificate in PEM", "→ certificates that begin with"],
        ),
        (
            "ca_file = \"FOLDER/ca.pem\"\ntoken_file = \"FOLDER/absent\"",
            78,
            ["secret file", "absent cannot be read (entity not found)"],
        ),
    ] {
        let program = fronted.program(&url, lines);
        let ended = run(&program, &["schemas", "--check"], &[]).await;
        assert_eq!(ended.code, code, "{lines}: {}", ended.out);
        let error = ended.err.lines().rfind(|line| line.starts_with("error: ")).expect("an error");
        assert!(error.starts_with(&format!("error: registry {url}")), "{lines}: {error}");
        assert!(words.iter().all(|word| error.contains(word)), "{lines}: {error}");
        // `check` reports the same, and goes on.
        let checked = run(&program, &["check"], &[]).await;
        assert!(words.iter().all(|word| checked.out.contains(word.trim_start_matches("→ "))), "{}", checked.out);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_credentials_of_the_registry_take_effect_without_a_restart() {
    let fronted = Fronted::start().await;
    let transport = fronted.transport();
    let login = Arc::new(Mutex::new(Login::Basic { username: "reader".to_owned(), password: PASSWORD.into() }));
    let (current, made_with) = (login.clone(), transport.clone());
    let read = move || {
        let login = current.lock().map_err(|_| Problem::new("a test failed"))?.clone();
        Ok(Access { login, transport: made_with.clone() })
    };
    let registry = Registry::with_access(&fronted.url(), Arc::new(read)).expect("a registry");
    let prefix = unique_prefix("rotation");
    registry.ids(&prefix, true).await.expect("the password is right");
    fronted.front.demand("Bearer next-canary");
    let Err(ServiceError::Refused(problem)) = registry.probe().await else { panic!("the password is wrong now") };
    assert!(
        problem.to_string().contains("the registry refuses the credentials; → check registry.username"),
        "{problem}"
    );
    *login.lock().expect("no test failed") = Login::Bearer("next-canary".into());
    // Also the client of the library registers with the new token.
    registry.ids(&unique_prefix("rotation"), true).await.expect("the token was read again");
    registry.ids(&prefix, false).await.expect("the schemas are there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_of_the_registry_that_is_replaced_takes_effect_without_a_restart() {
    let (ca, other, folder) = (Ca::new(), Ca::new(), tempfile::tempdir().expect("a folder"));
    let server = ca.certificate(&["127.0.0.1"], Holds::Now).server(Some(&ca));
    let front = Front::start(server, &origin(&services().registry), None).await;
    let url = format!("https://{}{}", front.address, Url::parse(&services().registry).expect("a URL").path());
    let read = |issuer: &Ca| {
        let client = issuer.certificate(&["client"], Holds::Now);
        Transport { trust: trust(folder.path(), &ca.pem(), Some(&client)), proxy: None }
    };
    let transport = Arc::new(Mutex::new(read(&other)));
    let current = transport.clone();
    let access = move || {
        let transport = current.lock().map_err(|_| Problem::new("a test failed"))?.clone();
        Ok(Access { login: Login::None, transport })
    };
    let registry = Registry::with_access(&url, Arc::new(access)).expect("a registry");
    assert!(registry.probe().await.is_err(), "the server does not trust that CA");
    *transport.lock().expect("no test failed") = read(&ca);
    assert_eq!(registry.probe().await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_an_account_that_are_replaced_take_effect_with_the_next_sync() {
    let (ca, other, folder) = (Ca::new(), Ca::new(), tempfile::tempdir().expect("a folder"));
    let service = directory().await;
    let server = ca.certificate(&["127.0.0.1"], Holds::Now).server(Some(&ca));
    let front = Front::start(server, &origin(&service.base_url()), None).await;
    let file = |name: &str| folder.path().join(name).display().to_string();
    let text = format!(
        "[kafka]\nbrokers = [\"127.0.0.1:1\"]\n[registry]\nurl = \"http://127.0.0.1:1\"\n[network]\nproxy = \"none\"\n\
         [[account]]\nname = \"acme\"\nprovider = \"chargebee\"\nbase_url = \"https://{}/scim/v2\"\n\
         token_file = \"{}\"\nca_file = \"{}\"\nclient_cert_file = \"{}\"\nclient_key_file = \"{}\"\n",
        front.address,
        file("token"),
        file("ca.pem"),
        file("client.pem"),
        file("client-key.pem"),
    );
    write(folder.path(), "token", TOKEN);
    let replace = |trusted: &Ca, issuer: &Ca| {
        let client = issuer.certificate(&["client"], Holds::Now);
        write(folder.path(), "ca.pem", &trusted.pem());
        write(folder.path(), "client.pem", &client.pem);
        write(folder.path(), "client-key.pem", &client.key_pem);
    };
    let config = Config::parse("scimtail.toml", &text).expect("a configuration");
    let mut connection = Connection::new(&config.accounts[0], now_millis);
    let mut listed = async || {
        let AnyDirectory::Scim(directory) = connection.directory()? else { panic!("it speaks SCIM") };
        directory.first_page(Kind::User).await.map(|page| page.rows.len())
    };
    assert!(matches!(listed().await, Err(error) if error.code == ReasonCode::CredentialUnreadable), "no files yet");
    replace(&other, &ca);
    let untrusted = listed().await;
    assert!(matches!(untrusted, Err(error) if error.code == ReasonCode::NotConnectable), "the server is not trusted");
    replace(&ca, &ca);
    assert!(listed().await.expect("both sides trust each other") > 0);
    replace(&ca, &other);
    // A server that ends the connection right after its alert may be faster than the alert.
    let refused = [ReasonCode::NotConnectable, ReasonCode::Unreachable];
    assert!(matches!(listed().await, Err(error) if refused.contains(&error.code)), "the client is not trusted");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_the_proxy_of_each_account_and_of_the_registry() {
    let fronted = Fronted::start().await;
    let service = directory().await;
    let server = fronted.ca.certificate(&["vendor.invalid"], Holds::Now).server(None);
    let vendor = Front::start(server, &origin(&service.base_url()), None).await;
    let proxy = ConnectProxy::start(Policy::Connects(vendor.address)).await;
    let folder = fronted.folder.path().display().to_string();
    let registry = format!(
        "ca_file = \"{folder}/ca.pem\"\nusername = \"reader\"\npassword_file = \"{folder}/password\"\nproxy = \"none\""
    );
    let program = fronted.program(&fronted.url(), &registry);
    let text = std::fs::read_to_string(program.file()).expect("the configuration").replace(
        "base_url = \"http://127.0.0.1:9/scim/v2\"",
        &format!("base_url = \"https://vendor.invalid/scim/v2\"\nca_file = \"{folder}/ca.pem\""),
    );
    std::fs::write(program.file(), &text).expect("the configuration");
    // The environment names the proxy, with a password that no output holds.
    let variable = format!("http://user:proxy-canary@{}", proxy.address);
    let checked = run(&program, &["check"], &[("HTTPS_PROXY", &variable)]).await;
    assert_eq!(checked.code, 0, "{}", checked.out);
    let named = format!("ok    proxy       through {}, from the environment", proxy.address);
    assert_eq!(checked.out.matches(&named).count(), 1, "{}", checked.out);
    let targets = proxy.targets();
    assert!(!targets.is_empty() && targets.iter().all(|target| target == "vendor.invalid:443"), "{targets:?}");

    // The configuration comes first, for the registry too.
    proxy.set(Policy::Refuses(403));
    let configured = text.replace("\nproxy = \"none\"", "") + &format!("[network]\nproxy = \"{}\"\n", proxy.url());
    std::fs::write(program.file(), configured).expect("the configuration");
    let checked = run(&program, &["check"], &[("HTTPS_PROXY", "http://127.0.0.1:1")]).await;
    assert_eq!(checked.code, 78, "{}", checked.out);
    let named = format!("ok    proxy       through {}\n", proxy.address);
    assert_eq!(checked.out.matches(&named).count(), 2, "{}", checked.out);
    let refused = format!("the proxy {} refuses the connection to the server (HTTP 403)\n", proxy.address);
    assert_eq!(checked.out.matches(&refused).count(), 2, "{}", checked.out);
    // `run` fails for the same reason, in the same words, with the same code.
    let ran = run(&program, &["run", "--once"], &[]).await;
    let words = format!("cannot be reached: {}; → ask the operator of the proxy", refused.trim_end());
    assert!(ran.code == 78 && ran.err.contains(&words), "{} {}", ran.code, ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_too_many_users_may_read_or_write_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let fronted = Fronted::start().await;
    let mode = |name: &str, mode| {
        let path = fronted.folder.path().join(name);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("its mode");
    };
    let lines = "ca_file = \"FOLDER/ca.pem\"\nusername = \"reader\"\npassword_file = \"FOLDER/password\"";
    let program = fronted.program(&fronted.url(), lines);
    let ended = run(&program, &["check"], &[]).await;
    assert!(!ended.out.contains("note  files"), "{}", ended.out);
    mode("password", 0o644);
    mode("ca.pem", 0o664);
    let ended = run(&program, &["check"], &[]).await;
    let notes: Vec<&str> = ended.out.lines().filter(|line| line.contains("note  files")).collect();
    assert_eq!(notes.len(), 2, "{}", ended.out);
    assert!(notes[0].contains("password: all users of this machine may read it; → chmod o-rwx"), "{notes:?}");
    assert!(
        notes[1].contains("ca.pem: its group or all users of this machine may write it; → chmod go-w"),
        "{notes:?}"
    );
    let said = ended.err.matches("may read it; → chmod o-rwx").count();
    assert_eq!(said, 1, "the log says it once, however often the file is read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_ca_certificates_runs_the_demo_and_is_told_what_https_needs() {
    let none = [("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "/absent")];
    let program = Program::with_text("none", TOKEN, "");
    let demo = run(&program, &["demo", "--syncs", "1", "--seed", "3", "--interval", "1s"], &none).await;
    assert_eq!(demo.code, 0, "{}", demo.out);

    let text = format!(
        "[kafka]\nbrokers = [\"{}\"]\ntopic_prefix = \"{}\"\n[registry]\nurl = \"https://registry.invalid\"\n\
         [[account]]\nname = \"acme\"\nprovider = \"chargebee\"\nbase_url = \"https://vendor.invalid/scim/v2\"\n\
         token_env = \"{}\"\n",
        services().bootstrap,
        unique_prefix("bare"),
        crate::program::TOKEN_VARIABLE
    );
    let checked = run(&Program::with_text("bare", TOKEN, &text), &["check"], &none).await;
    assert_eq!(checked.code, 78, "{}", checked.out);
    let words = "TLS cannot be set up: this machine has no CA certificates\n";
    assert_eq!(checked.out.matches(words).count(), 2, "{}", checked.out);
    assert_eq!(checked.out.matches("→ install the package ca-certificates").count(), 2, "{}", checked.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_the_place_of_a_path_or_a_variable_is_printed_by_no_command() {
    let key = "-----BEGIN PRIVATE KEY-----\\n4canary\\n-----END PRIVATE KEY-----";
    for lines in [
        format!("ca_file = \"{key}\""),
        format!("client_cert_file = \"{key}\"\nclient_key_file = \"{key}\""),
        "token_file = \"canary-token\"".to_owned(),
        "token_env = \"canary_token\"".to_owned(),
        "username = \"canary\"\npassword_file = \"canary-password\"".to_owned(),
        "username = \"canary\"\npassword_env = \"canary_password\"".to_owned(),
        "proxy = \"http://127.0.0.1:1\"\nproxy_username = \"canary\"\nproxy_password_env = \"canary_password\""
            .to_owned(),
    ] {
        let text = format!(
            "[kafka]\nbrokers = [\"127.0.0.1:1\"]\n[registry]\nurl = \"https://127.0.0.1:1\"\n{lines}\n\
             [[account]]\nname = \"acme\"\nprovider = \"chargebee\"\nbase_url = \"https://127.0.0.1:1/scim/v2\"\n{}\n",
            if lines.contains("token_") || lines.contains("username") && !lines.contains("proxy") {
                "token_env = \"canary_token\"".to_owned()
            } else {
                format!("{lines}\ntoken_file = \"canary-token\"")
            }
        );
        let program = Program::with_text("none", TOKEN, &text);
        for command in [["schemas", "--check"].as_slice(), &["topics", "--print"]] {
            let ended = run(&program, command, &[]).await;
            assert!(ended.code == 78 || command[0] == "topics", "{lines}: {} {}", ended.out, ended.err);
        }
    }
}
