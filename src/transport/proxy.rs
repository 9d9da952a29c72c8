//! The proxy between a client and servers that speak https. It gets a CONNECT (RFC 9110 §9.3.6) and sees neither
//! credentials nor bodies.

use std::fmt;
use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::{Host, Url};

use crate::directory::Problem;

/// For the answer of a proxy that is asked why it did not connect.
pub const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Bytes of a status line up to the status, e.g. `HTTP/1.1 403`.
const STATUS_BYTES: usize = 12;

/// What a proxy answers to a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// This status.
    Http(u16),
    /// Something that HTTP does not begin with.
    NotHttp,
}

impl Answer {
    /// Reads the beginning of an answer, [`STATUS_BYTES`] long or shorter.
    fn read(start: &[u8]) -> Answer {
        let text = str::from_utf8(start).ok();
        let status = text.and_then(|text| text.strip_prefix("HTTP/1.1 ").or(text.strip_prefix("HTTP/1.0 ")));
        status.and_then(|status| status.parse().ok()).map_or(Answer::NotHttp, Answer::Http)
    }
}

/// A proxy, and how a client logs in there.
#[derive(Clone)]
pub struct Proxy {
    /// Without user name and password.
    url: Url,
    login: Option<(String, SecretString)>,
    /// Hosts that are reached directly, as in the variable `NO_PROXY`.
    not_for: String,
}

impl Proxy {
    /// `url`: `http://host:port`, as [`proxy_url`] checks it.
    pub fn new(url: Url, login: Option<(String, SecretString)>) -> Proxy {
        Proxy { url, login, not_for: String::new() }
    }

    /// The proxy that the variable `HTTPS_PROXY` names: with or without `http://`, with or without a user name and a
    /// password. `no_proxy`: the value of `NO_PROXY`.
    ///
    /// # Errors
    /// The value is not a proxy that scimtail can use; says what it has to be, without the value.
    pub fn from_variable(value: &str, no_proxy: &str) -> Result<Proxy, &'static str> {
        let value = value.trim();
        let text = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
        let mut url = Url::parse(&text).map_err(|_| "is not http://host:port")?;
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let login = (!url.username().is_empty() || url.password().is_some())
            .then(|| (decoded(url.username()), SecretString::from(decoded(url.password().unwrap_or("")))));
        let bare = url.set_username("").and_then(|()| url.set_password(None));
        bare.map_err(|()| "is not http://host:port")?;
        url.set_path("");
        Ok(Proxy { url: proxy_url(url.as_str())?, login, not_for: without_brackets(no_proxy) })
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        address(&self.url)
    }

    /// True if the client logs in with a user name.
    pub fn has_login(&self) -> bool {
        self.login.is_some()
    }

    /// True if this URL is reached through the proxy.
    pub fn is_for(&self, url: &Url) -> bool {
        let rules = Matcher::builder().https(self.url.as_str()).no(self.not_for.as_str()).build();
        url.as_str().parse().is_ok_and(|target| rules.intercept(&target).is_some())
    }

    /// Asks the proxy for a connection to `url`, and takes no more than the beginning of the answer. `None` without an
    /// answer.
    pub(super) async fn answer(&self, url: &Url) -> Option<Answer> {
        timeout(ANSWER_WAIT, self.ask(url)).await.ok().flatten()
    }

    async fn ask(&self, url: &Url) -> Option<Answer> {
        let target = address(url);
        let login = self.authorization().map_or_else(String::new, |value| format!("Proxy-Authorization: {value}\r\n"));
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n");
        let mut stream = TcpStream::connect(self.address()).await.ok()?;
        stream.write_all(head.as_bytes()).await.ok()?;
        let mut start = Vec::with_capacity(STATUS_BYTES);
        stream.take(STATUS_BYTES as u64).read_to_end(&mut start).await.ok()?;
        (!start.is_empty()).then(|| Answer::read(&start))
    }

    /// The value of `Proxy-Authorization`, as the library writes it.
    fn authorization(&self) -> Option<String> {
        let (username, password) = self.login.as_ref()?;
        let mut url = self.url.clone();
        // `Url` leaves a percent sign as it is.
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        url.set_username(&encoded(username)).ok()?;
        url.set_password(Some(&encoded(password.expose_secret()))).ok()?;
        let rules = Matcher::builder().all(url.as_str()).build();
        let way = rules.intercept(&"https://server.invalid".parse().ok()?)?;
        way.basic_auth()?.to_str().ok().map(str::to_owned)
    }

    /// The proxy for a client of the server at `server`.
    pub(super) fn to_reqwest_for(&self, server: &Url) -> Result<reqwest::Proxy, Problem> {
        // Behind the tunnel, the library takes the host with its brackets for the name in the certificate, and fails.
        if let Some(Host::Ipv6(ip)) = server.host() {
            let what =
                format!("[{ip}] is an IPv6 address, and the proxy {} is only used for host names", self.address());
            return Err(Problem::new(what)
                .with_remedy("a host name in the URL, or proxy = \"none\", or the address in NO_PROXY"));
        }
        let url = self.url.clone();
        // As a function: in the form of a URL, the library would keep the password in a text that it prints.
        let proxy = reqwest::Proxy::custom(move |target| (target.scheme() == "https").then(|| url.clone()));
        Ok(match &self.login {
            None => proxy,
            Some((username, password)) => proxy.basic_auth(username, password.expose_secret()),
        })
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", self.address())
    }
}

impl PartialEq for Proxy {
    fn eq(&self, other: &Proxy) -> bool {
        let login = |proxy: &Proxy| {
            proxy.login.as_ref().map(|(username, password)| (username.clone(), password.expose_secret().to_owned()))
        };
        self.url == other.url && self.not_for == other.not_for && login(self) == login(other)
    }
}

impl Eq for Proxy {}

/// The rules of `NO_PROXY` with IPv6 addresses as the library reads them: people write them as in a URL, too.
fn without_brackets(rules: &str) -> String {
    let bare = |rule: &str| -> String {
        let parts = rule.trim().strip_prefix('[').and_then(|rule| rule.split_once(']'));
        match parts {
            // `[::1]` and `[2001:db8::]/32`. With a port it is another rule, which no library here knows.
            Some((address, rest)) if rest.is_empty() || rest.starts_with('/') => format!("{address}{rest}"),
            _ => rule.to_owned(),
        }
    };
    rules.split(',').map(bare).collect::<Vec<_>>().join(",")
}

/// `host:port` of a proxy's URL.
pub fn address(url: &Url) -> String {
    let port = url.port_or_known_default().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}{port}", url.host_str().unwrap_or_default())
}

/// The URL of a proxy: `http://host:port` and nothing else.
///
/// # Errors
/// Says what is wrong, without the URL.
pub fn proxy_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "is not http://host:port")?;
    if url.scheme() != "http" || url.host_str().is_none_or(str::is_empty) {
        return Err("is not http://host:port");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold credentials");
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err("has more than http://host:port");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn only_https_goes_through_a_proxy_and_no_proxy_is_obeyed() {
        let rules = "acme.example, .intern.example,10.0.0.0/8,::1";
        let proxy = Proxy::from_variable("http://proxy.example:3128", rules).unwrap();
        for through in
            ["https://vendor.example/scim/v2", "https://notacme.example", "https://11.0.0.1", "https://[::2]"]
        {
            assert!(proxy.is_for(&url(through)), "{through}");
        }
        for direct in [
            "http://localhost:8080/scim/v2",
            "http://vendor.example",
            "https://acme.example",
            "https://a.acme.example:8443",
            "https://x.intern.example",
            "https://10.1.2.3/scim",
            "https://[::1]:8443",
        ] {
            assert!(!proxy.is_for(&url(direct)), "{direct}");
        }
        assert!(!Proxy::from_variable("proxy:1", "*").unwrap().is_for(&url("https://vendor.example")));
        assert!(Proxy::new(url("http://proxy:1"), None).is_for(&url("https://acme.example")));
    }

    #[test]
    fn no_proxy_takes_ipv6_addresses_with_and_without_brackets() {
        let proxy =
            Proxy::from_variable("proxy:1", "[::1], [2001:db8:1::]/48,2001:db8:2::/48,2606:4700::1,[2606:4700::2]:443");
        let proxy = proxy.unwrap();
        for direct in ["[::1]:8443", "[2001:db8:1::5]", "[2001:db8:2::5]", "[2606:4700::1]"] {
            assert!(!proxy.is_for(&url(&format!("https://{direct}/scim"))), "{direct}");
        }
        for through in ["[2001:db8:3::5]", "[2606:4700::2]", "vendor.example"] {
            assert!(proxy.is_for(&url(&format!("https://{through}/scim"))), "{through}");
        }
    }

    #[test]
    fn the_beginning_of_an_answer_tells_what_a_proxy_says() {
        for (start, answer) in [
            ("HTTP/1.1 403", Answer::Http(403)),
            ("HTTP/1.0 502", Answer::Http(502)),
            ("HTTP/1.1 4", Answer::Http(4)),
            ("HTTP/1.1 abc", Answer::NotHttp),
            ("SSH-2.0-Open", Answer::NotHttp),
            ("<html", Answer::NotHttp),
        ] {
            assert_eq!(Answer::read(start.as_bytes()), answer, "{start}");
        }
        assert_eq!(Answer::read(b"\x15\x03\x03\x00\x02\x02\x16"), Answer::NotHttp);
    }

    #[test]
    fn a_question_to_the_proxy_has_the_login_that_requests_have() {
        let login =
            |username: &str, password: &str| Some((username.to_owned(), SecretString::from(password.to_owned())));
        // base64 of `us:er:p%41@ä`, and of `user:`.
        for (login, header) in [
            (login("us:er", "p%41@ä"), Some("Basic dXM6ZXI6cCU0MUDDpA==")),
            (login("user", ""), Some("Basic dXNlcjo=")),
            (None, None),
        ] {
            let proxy = Proxy::new(url("http://[fd00::1]:3128"), login);
            assert_eq!(proxy.authorization().as_deref(), header);
        }
    }

    #[test]
    fn the_variable_may_hold_a_password_which_is_shown_nowhere() {
        let proxy = Proxy::from_variable("http://us%3Aer:4ca9%41ry@proxy.example:3128/", "").unwrap();
        let (username, password) = proxy.login.clone().unwrap();
        assert_eq!((username.as_str(), password.expose_secret()), ("us:er", "4ca9Ary"));
        assert_eq!(
            (proxy.address().as_str(), proxy.url.as_str()),
            ("proxy.example:3128", "http://proxy.example:3128/")
        );
        assert!(!format!("{proxy:?}{:?}", proxy.to_reqwest_for(&url("https://a.example")).unwrap()).contains("4ca9"));
        assert_eq!(Proxy::from_variable("proxy.example", "").unwrap().address(), "proxy.example:80");
        assert_eq!(Proxy::from_variable("u@[fd00::1]:8080", "").unwrap().address(), "[fd00::1]:8080");
        for wrong in ["socks5://4ca9ary@proxy:1080", "https://proxy:443", "http://", "http://proxy:4ca9ary", "a b"] {
            let complaint = Proxy::from_variable(wrong, "").unwrap_err();
            assert!(complaint.contains("http://host:port"), "{wrong}: {complaint}");
        }
    }

    #[test]
    fn a_proxy_whose_password_changed_is_another_one() {
        let with = |password: &str| {
            Proxy::new(url("http://proxy:1"), Some(("user".to_owned(), SecretString::from(password.to_owned()))))
        };
        assert_eq!(with("a"), with("a"));
        assert_ne!(with("a"), with("b"));
        assert_ne!(with("a"), Proxy::new(url("http://proxy:1"), None));
    }

    #[test]
    fn the_url_of_a_proxy_is_a_host_and_a_port() {
        for (text, complaint) in [
            ("proxy.example:3128", "is not http://host:port"),
            ("https://proxy.example:3128", "is not http://host:port"),
            ("socks5://proxy.example:1080", "is not http://host:port"),
            ("http://user:pass@proxy.example:3128", "must not hold credentials"),
            ("http://user@proxy.example:3128", "must not hold credentials"),
            ("http://proxy.example:3128/path", "has more than http://host:port"),
            ("http://proxy.example:3128?a=b", "has more than http://host:port"),
        ] {
            assert_eq!(proxy_url(text), Err(complaint), "{text}");
        }
        assert_eq!(address(&proxy_url("http://10.0.0.1:3128").unwrap()), "10.0.0.1:3128");
    }
}
