//! Why a connection to a broker fails, read from librdkafka's line about it.
//!
//! librdkafka says that no broker answers and nothing else through its calls. The cause is only in the lines that it
//! logs under the facility `FAIL`, e.g. `sasl_ssl://kafka:9093/bootstrap: SASL authentication error: … (after 302ms in
//! state AUTH_REQ)`. It has no typed cause, so these lines are searched. Nothing else reads them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::directory::Problem;

/// The facility of librdkafka's lines about failed connections.
const FACILITY: &str = "FAIL";
/// A cause that is older says nothing about the present: librdkafka connects again every second.
const FRESH: Duration = Duration::from_secs(30);
/// A listener that closes a connection sooner after its first request does so because of the request.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Bytes of a list of mechanisms that a broker offers.
const MECHANISMS_BYTES_MAX: usize = 120;

/// Why a connection fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The host name has no address.
    Unresolved,
    /// Nothing listens at the port.
    ConnectionRefused,
    /// The connection was not set up in time.
    Silent,
    /// It was, and nothing answers.
    Unanswered,
    /// What answers is not Kafka.
    NotKafka,
    /// OpenSSL refuses the broker's certificate. It does not say why; [`super::certificate`] finds out.
    Certificate,
    /// The broker refuses our certificate, or asks for one.
    ClientCertificate,
    /// Another failure of the TLS handshake, e.g. no common version.
    Handshake,
    /// TLS to a port that does not speak it.
    NoTls,
    /// Plain text to a port that takes TLS only.
    OnlyTls,
    /// No SASL to a port that asks for it.
    OnlySasl,
    /// SASL to a port that takes none.
    NoSasl,
    /// The broker does not offer the mechanism; `offered`: those that it offers, with commas between them.
    Mechanism { offered: String },
    /// The broker refuses the credentials.
    Credentials,
    /// No token for OAUTHBEARER.
    NoToken,
}

/// A failed connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedConnection {
    /// `host:port`.
    pub broker: String,
    pub cause: Cause,
}

impl FailedConnection {
    /// Reads a line of librdkafka. `None` for a line that says nothing about a cause: a connection that was idle is
    /// closed in the same way.
    pub fn read(line: &str) -> Option<FailedConnection> {
        // `[thrd:…]: ` names a thread of librdkafka.
        let line = line.rsplit_once("]: ").map_or(line, |(_, line)| line);
        let (url, said) = line.split_once(": ")?;
        let tls = url.starts_with("ssl://") || url.starts_with("sasl_ssl://");
        let sasl = url.starts_with("sasl_");
        let broker = url.rsplit_once("://").map_or(url, |(_, address)| address);
        let broker = broker.split('/').next().unwrap_or(broker);
        let has = |text: &str| said.contains(text);
        let closed_in = |state: &str| {
            let within = |millis: u64| Duration::from_millis(millis) < AT_ONCE;
            has("Disconnected") && has(state) && after_millis(said).is_some_and(within)
        };
        // librdkafka closes connections itself, in the middle of anything, e.g. because a coordinator moved.
        if has("failed: Local: ") || has("Closing connection due to") || has("Decommissioning") {
            return None;
        }
        let cause = if has("Failed to resolve") {
            Cause::Unresolved
        } else if has("Connection refused") {
            Cause::ConnectionRefused
        } else if has("timed out in state CONNECT") || has("unreachable (after") {
            Cause::Silent
        } else if has("Connection setup timed out") {
            Cause::Unanswered
        } else if has("Invalid response size") {
            Cause::NotKafka
        } else if has("certificate verify failed") {
            Cause::Certificate
        } else if has("PLAINTEXT broker listener") || has("wrong version number") || has("packet length too long") {
            Cause::NoTls
        } else if tls && has("alert") && (has("certificate") || has("unknown ca")) {
            Cause::ClientCertificate
        } else if tls && has("alert") {
            Cause::Handshake
        } else if has("not valid in current SASL state") {
            Cause::NoSasl
        } else if has("Unsupported SASL mechanism") {
            Cause::Mechanism { offered: offered(said) }
        } else if has("there is no token available") {
            Cause::NoToken
        } else if has("SASL authentication error") || has("Authentication failed") {
            Cause::Credentials
        } else if !tls && closed_in("state APIVERSION_QUERY") {
            Cause::OnlyTls
        } else if !sasl && closed_in("state UP") {
            Cause::OnlySasl
        } else {
            return None;
        };
        Some(FailedConnection { broker: broker.to_owned(), cause })
    }

    /// True if the cause is a guess: a listener that closes connections. A proxy whose broker is down closes them too.
    pub fn is_guess(&self) -> bool {
        matches!(self.cause, Cause::NoTls | Cause::OnlyTls | Cause::OnlySasl)
    }

    /// True if the connection fails until a person changes something. Otherwise the broker or the network may come back.
    pub fn needs_person(&self) -> bool {
        !matches!(
            self.cause,
            Cause::Unresolved | Cause::ConnectionRefused | Cause::Silent | Cause::Unanswered | Cause::NoToken
        )
    }

    /// `mechanism`: as configured.
    pub fn problem(&self, mechanism: &str) -> Problem {
        const CLIENT: &str = "\"ssl.certificate.location\" and \"ssl.key.location\" in [kafka.properties]";
        let (what, remedy): (String, String) = match &self.cause {
            Cause::Unresolved => (
                "the host name cannot be resolved".to_owned(),
                "check kafka.brokers and the name service".to_owned(),
            ),
            Cause::ConnectionRefused => (
                "nothing listens at this address (connection refused)".to_owned(),
                "check kafka.brokers and that Kafka runs".to_owned(),
            ),
            Cause::Silent => (
                "no connection in time".to_owned(),
                "check kafka.brokers, and that no firewall is between this machine and Kafka".to_owned(),
            ),
            Cause::Unanswered => (
                "connections are accepted, and nothing answers as Kafka does".to_owned(),
                "check that kafka.brokers has the port of Kafka, and that Kafka runs".to_owned(),
            ),
            Cause::NotKafka => (
                "what answers at this address is not Kafka".to_owned(),
                "kafka.brokers: the port of a Kafka listener".to_owned(),
            ),
            Cause::Certificate => (
                "the broker's TLS certificate is refused".to_owned(),
                "check its issuer, host name and dates; \"ssl.ca.location\" in [kafka.properties] names a private CA"
                    .to_owned(),
            ),
            Cause::ClientCertificate => (
                "the broker refuses the client certificate, or asks for one".to_owned(),
                CLIENT.to_owned(),
            ),
            Cause::Handshake => (
                "the TLS handshake fails".to_owned(),
                "compare the TLS versions and ciphers of the broker with [kafka.properties]".to_owned(),
            ),
            Cause::NoTls => (
                "the broker ends the TLS handshake: this port probably does not speak TLS".to_owned(),
                "the port of a TLS listener, or \"security.protocol\" = \"plaintext\" or \"sasl_plaintext\" in \
                 [kafka.properties]"
                    .to_owned(),
            ),
            Cause::OnlyTls => (
                "the broker closes connections in plain text: this port probably takes TLS only".to_owned(),
                "\"security.protocol\" = \"ssl\" or \"sasl_ssl\" in [kafka.properties]".to_owned(),
            ),
            Cause::OnlySasl => (
                "the broker closes connections without credentials: this port probably asks for SASL".to_owned(),
                "\"security.protocol\" = \"sasl_ssl\", \"sasl.mechanism\" and \"sasl.username\" in [kafka.properties]"
                    .to_owned(),
            ),
            Cause::NoSasl => (
                "this port takes no credentials (SASL)".to_owned(),
                "\"security.protocol\" = \"ssl\" or \"plaintext\" in [kafka.properties], or the port of a SASL listener"
                    .to_owned(),
            ),
            Cause::Mechanism { offered } => (
                format!("the broker does not offer the SASL mechanism {mechanism}; it offers {offered}"),
                "\"sasl.mechanism\" in [kafka.properties]".to_owned(),
            ),
            Cause::Credentials if mechanism == "OAUTHBEARER" => (
                "Kafka refuses the token (SASL OAUTHBEARER)".to_owned(),
                "compare what the broker expects (issuer, audience, scope, or region) with [kafka.oauth] or [kafka.msk_iam]".to_owned(),
            ),
            Cause::Credentials => (
                format!("Kafka refuses the credentials (SASL {mechanism})"),
                "check \"sasl.username\" in [kafka.properties] and \"sasl.password\" in [kafka.secrets]".to_owned(),
            ),
            Cause::NoToken => (
                "there is no token for SASL OAUTHBEARER".to_owned(),
                "check [kafka.oauth]".to_owned(),
            ),
        };
        Problem::new(what).with_remedy(remedy).of(&format!("kafka {}", self.broker))
    }
}

/// The `302` of `(after 302ms in state AUTH_REQ)`.
fn after_millis(said: &str) -> Option<u64> {
    let (_, after) = said.rsplit_once("(after ")?;
    after.split("ms").next()?.parse().ok()
}

/// The list after `supported mechanisms: `. It comes from the server, so only what names of mechanisms consist of is
/// passed on (RFC 4422 §3.1).
fn offered(said: &str) -> String {
    let list = said.rsplit_once("supported mechanisms:").map_or("", |(_, list)| list);
    let list = list.split(" (after").next().unwrap_or(list).trim();
    let is_of_name = |c: &char| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | ',');
    let list: String = list.chars().filter(is_of_name).take(MECHANISMS_BYTES_MAX).collect();
    if list.is_empty() { "none".to_owned() } else { list.replace(',', ", ") }
}

/// The newest failed connection of the clients that share it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Failures(Arc<Mutex<Option<(FailedConnection, Instant)>>>);

impl Failures {
    /// Takes a line of librdkafka.
    pub fn take(&self, facility: &str, line: &str) {
        if facility != FACILITY {
            return;
        }
        if let Some(failed) = FailedConnection::read(line) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((failed, Instant::now()));
        }
    }

    /// The newest one, if it is fresh.
    pub fn newest(&self) -> Option<FailedConnection> {
        let newest = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        newest.filter(|(_, at)| at.elapsed() < FRESH).map(|(failed, _)| failed)
    }

    /// A broker answers: what failed before no longer counts.
    pub fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Of two clients that are configured alike, it does not matter what failed so far.
impl PartialEq for Failures {
    fn eq(&self, _: &Failures) -> bool {
        true
    }
}

impl Eq for Failures {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of librdkafka 2.12.1 with OpenSSL 3, against Kafka 4.1.1 and against nothing.
    const LINES: [(&str, &str, &str); 18] = [
        (
            "[thrd:nosuchhost.invalid:9092/bootstrap]: nosuchhost.invalid:9092/bootstrap: Failed to resolve 'nosuchhost.invalid:9092': Name or service not known (after 0ms in state CONNECT)",
            "nosuchhost.invalid:9092",
            "the host name cannot be resolved",
        ),
        (
            "[thrd:127.0.0.1:1/bootstrap]: 127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)",
            "127.0.0.1:1",
            "nothing listens at this address",
        ),
        (
            "[thrd:10.0.0.1:9092/bootstrap]: 10.0.0.1:9092/bootstrap: Connection setup timed out in state CONNECT (after 30027ms in state CONNECT)",
            "10.0.0.1:9092",
            "no connection in time",
        ),
        (
            "[thrd:127.0.0.1:19080/bootstrap]: 127.0.0.1:19080/bootstrap: Connection setup timed out in state APIVERSION_QUERY (after 3011ms in state APIVERSION_QUERY)",
            "127.0.0.1:19080",
            "nothing answers as Kafka does",
        ),
        (
            "[thrd:ssl://kafka.example:443/bootstrap]: ssl://kafka.example:443/bootstrap: Receive failed: Invalid response size 1213486160 (0..100000000): increase receive.message.max.bytes (after 5ms in state APIVERSION_QUERY)",
            "kafka.example:443",
            "is not Kafka",
        ),
        (
            "[thrd:ssl://localhost:19091/bootstrap]: ssl://localhost:19091/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not be verified, verify that ssl.ca.location is correctly configured or root CA certificates are installed (install ca-certificates package) (after 78ms in state SSL_HANDSHAKE)",
            "localhost:19091",
            "TLS certificate is refused",
        ),
        (
            "[thrd:ssl://localhost:19091/bootstrap]: ssl://localhost:19091/bootstrap: error:0A000086:SSL routines::certificate verify failed (after 30ms in state SSL_HANDSHAKE)",
            "localhost:19091",
            "TLS certificate is refused",
        ),
        (
            "[thrd:ssl://localhost:19092/bootstrap]: ssl://localhost:19092/bootstrap: Receive failed: error:0A000412:SSL routines::sslv3 alert bad certificate: SSL alert number 42 (after 0ms in state APIVERSION_QUERY)",
            "localhost:19092",
            "refuses the client certificate, or asks for one",
        ),
        (
            "[thrd:ssl://127.0.0.1:19090/bootstrap]: ssl://127.0.0.1:19090/bootstrap: SSL handshake failed: Disconnected: SSL connection closed by peer: connecting to a PLAINTEXT broker listener? (after 1ms in state SSL_HANDSHAKE)",
            "127.0.0.1:19090",
            "probably does not speak TLS",
        ),
        (
            "[thrd:localhost:19091/bootstrap]: localhost:19091/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN (after 1ms in state APIVERSION_QUERY)",
            "localhost:19091",
            "probably takes TLS only",
        ),
        (
            "[thrd:sasl_plaintext://localhost:19093/bootstrap]: sasl_plaintext://localhost:19093/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN (after 1ms in state APIVERSION_QUERY)",
            "localhost:19093",
            "probably takes TLS only",
        ),
        (
            "[thrd:localhost:19094/bootstrap]: localhost:19094/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN (after 0ms in state UP)",
            "localhost:19094",
            "probably asks for SASL",
        ),
        (
            "[thrd:ssl://localhost:19093/bootstrap]: ssl://localhost:19093/bootstrap: Disconnected: SSL connection closed by peer (after 0ms in state UP)",
            "localhost:19093",
            "probably asks for SASL",
        ),
        (
            "[thrd:sasl_ssl://localhost:19091/bootstrap]: sasl_ssl://localhost:19091/bootstrap: SASL PLAIN mechanism handshake failed: Broker: Request not valid in current SASL state: broker's supported mechanisms:  (after 4ms in state AUTH_HANDSHAKE)",
            "localhost:19091",
            "takes no credentials",
        ),
        (
            "[thrd:sasl_ssl://localhost:19097/bootstrap]: sasl_ssl://localhost:19097/bootstrap: SASL SCRAM-SHA-512 mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's supported mechanisms: PLAIN,OAUTHBEARER (after 301ms in state AUTH_HANDSHAKE)",
            "localhost:19097",
            "does not offer the SASL mechanism SCRAM-SHA-512; it offers PLAIN, OAUTHBEARER",
        ),
        (
            "[thrd:sasl_ssl://localhost:19093/bootstrap]: sasl_ssl://localhost:19093/bootstrap: SASL authentication error: Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-512 (after 344ms in state AUTH_REQ)",
            "localhost:19093",
            "refuses the credentials (SASL SCRAM-SHA-512)",
        ),
        (
            "[thrd:sasl_ssl://localhost:19093/bootstrap]: sasl_ssl://localhost:19093/bootstrap: SASL authentication error: Authentication failed: Invalid username or password (after 302ms in state AUTH_REQ, 1 identical error(s) suppressed)",
            "localhost:19093",
            "refuses the credentials (SASL SCRAM-SHA-512)",
        ),
        (
            "[thrd:sasl_ssl://localhost:19097/bootstrap]: sasl_ssl://localhost:19097/bootstrap: SASL SCRAM-SHA-512 mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's supported mechanisms: \u{1b}[31m (after 301ms in state AUTH_HANDSHAKE)",
            "localhost:19097",
            "it offers 31",
        ),
    ];

    #[test]
    fn each_line_of_librdkafka_about_a_failed_connection_says_why() {
        for (line, broker, words) in LINES {
            let failed = FailedConnection::read(line).unwrap_or_else(|| panic!("{line}"));
            let problem = failed.problem("SCRAM-SHA-512");
            assert_eq!(failed.broker, broker);
            assert!(problem.what.contains(words), "{problem}");
            assert!(problem.remedy.is_some() && !problem.to_string().contains(char::is_control), "{problem}");
        }
    }

    #[test]
    fn a_connection_that_was_in_use_and_is_closed_says_nothing() {
        for line in [
            "[thrd:localhost:9092/1]: localhost:9092/1: Disconnected: connection closed by peer (after 600012ms in state UP)",
            "[thrd:sasl_ssl://localhost:9092/1]: sasl_ssl://localhost:9092/1: Disconnected (after 3ms in state UP)",
            "[thrd:GroupCoordinator]: GroupCoordinator: SASL authentication error: SaslAuthenticateRequest failed: Local: Broker transport failure (after 302ms in state AUTH_REQ)",
            "[thrd:GroupCoordinator]: GroupCoordinator: Closing connection due to nodename change (after 121ms in state UP) (_TRANSPORT)",
            "[thrd:main]: 1/1 brokers are down",
            "nothing",
        ] {
            assert_eq!(FailedConnection::read(line), None, "{line}");
        }
    }

    #[test]
    fn what_may_pass_by_itself_needs_no_person() {
        let needs: Vec<bool> =
            LINES.iter().map(|(line, ..)| FailedConnection::read(line).unwrap().needs_person()).collect();
        assert_eq!(needs[..4], [false; 4]);
        assert!(needs[4..].iter().all(|needs| *needs));
    }

    #[test]
    fn only_lines_about_failures_are_taken_and_an_answer_forgets_them() {
        let failures = Failures::default();
        failures.take("CONNECT", LINES[0].0);
        assert_eq!(failures.newest(), None);
        failures.take("FAIL", LINES[0].0);
        assert_eq!(failures.newest().unwrap().cause, Cause::Unresolved);
        failures.forget();
        assert_eq!(failures.newest(), None);
    }
}
