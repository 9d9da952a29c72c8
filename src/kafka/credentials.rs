//! What a client shows a broker, as far as that changes while the client lives: tokens, and passwords.
//!
//! librdkafka takes a password when a client is made. It shows it at each new connection, and again where the broker ends
//! sessions (KIP-368). A client that lives longer than its password would never get in again, and the member of the
//! consumer group lives as long as the process. So a living client gets each newer password, as it gets each newer token.

use std::ffi::CString;
use std::fmt;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::bindings::{rd_kafka_error_destroy, rd_kafka_sasl_set_credentials};
use rdkafka::client::Client;
use rdkafka::producer::{Producer, ProducerContext, ThreadedProducer};
use secrecy::{ExposeSecret, SecretString};
use tracing::debug;

use super::oauth::{self, Tokens};
use crate::service::ServiceError;

/// How soon a client is given what is newer.
const HANDED_OVER: Duration = Duration::from_secs(1);
/// Between two looks at where the password is.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The value of a property that is read again for each new client, so that its rotation takes effect.
#[derive(Clone)]
pub struct SecretProperty {
    /// Where it is, in words that reveal nothing.
    pub place: String,
    pub read: Arc<dyn Fn() -> Result<SecretString, String> + Send + Sync>,
}

impl fmt::Debug for SecretProperty {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.place)
    }
}

/// Two are equal if they are in the same place: what is there is read when it is needed.
impl PartialEq for SecretProperty {
    fn eq(&self, other: &SecretProperty) -> bool {
        self.place == other.place
    }
}

impl Eq for SecretProperty {}

/// What a client was given last.
#[derive(Debug, Default)]
pub struct Given {
    token: oauth::Given,
    login: Mutex<Login>,
}

#[derive(Default)]
struct Login {
    /// User name and password; `None` if they are as the client was made with.
    shown: Option<(SecretString, SecretString)>,
    looked: Option<Instant>,
}

impl fmt::Debug for Login {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Login")
    }
}

/// Where a client's credentials come from.
#[derive(Clone)]
pub struct Credentials {
    pub tokens: Option<Tokens>,
    /// `sasl.username` and `sasl.password`, if one of them is a secret that may change.
    pub login: Option<(SecretProperty, SecretProperty)>,
}

impl Credentials {
    /// Gives a new client its token, if clients have one. Blocks.
    ///
    /// # Errors
    /// No token is issued.
    pub fn give<C: ClientContext>(&self, client: &Client<C>, given: &Given) -> Result<(), ServiceError> {
        self.tokens.as_ref().map_or(Ok(()), |tokens| tokens.give(client, &given.token))
    }

    /// Gives a client each newer token and password. To be called about every second. It reads a file at most.
    pub fn renew<C: ClientContext>(&self, client: &Client<C>, given: &Given) {
        if let Some(tokens) = &self.tokens {
            tokens.renew(client, &given.token);
        }
        let Some((username, password)) = &self.login else { return };
        let mut login = given.login.lock().unwrap_or_else(PoisonError::into_inner);
        if login.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return;
        }
        login.looked = Some(Instant::now());
        // A secret that cannot be read is said by the next client that is made. This one keeps what it has.
        let (Ok(username), Ok(password)) = ((username.read)(), (password.read)()) else { return };
        let same = |(name, word): &(SecretString, SecretString)| {
            name.expose_secret() == username.expose_secret() && word.expose_secret() == password.expose_secret()
        };
        if login.shown.as_ref().is_some_and(same) {
            return;
        }
        if set_login(client, &username, &password) {
            // The first time it may be what the client was made with.
            if login.shown.is_some() {
                debug!("a client of Kafka got its new password");
            }
            login.shown = Some((username, password));
        } else {
            debug!("a client of Kafka does not take a password");
        }
    }

    /// Gives a producer what is newer, until the result is dropped; `None` if nothing changes.
    pub fn keep<C: ProducerContext + 'static>(self, producer: &ThreadedProducer<C>, given: Given) -> Option<Keeper> {
        if self.tokens.is_none() && self.login.is_none() {
            return None;
        }
        let producer = producer.clone();
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(HANDED_OVER) == Err(RecvTimeoutError::Timeout) {
                self.renew(producer.client(), &given);
            }
        });
        Some(Keeper { stop: Some(stop), thread: Some(thread) })
    }
}

/// A thread that gives a producer what is newer. If it is dropped, it holds the producer no longer.
pub struct Keeper {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It panics only if librdkafka's call does, and then nothing is left to give up.
            drop(thread.join());
        }
    }
}

/// True if librdkafka takes them. It shows them at the next connection.
#[expect(unsafe_code, reason = "rdkafka has no such call")]
fn set_login<C: ClientContext>(client: &Client<C>, username: &SecretString, password: &SecretString) -> bool {
    let texts = [username, password].map(|text| CString::new(text.expose_secret()));
    let [Ok(username), Ok(password)] = texts else { return false };
    // SAFETY: the client lives as long as it is borrowed, and this function may be called from any thread, because
    // librdkafka locks what it changes. Both texts end with a zero byte and live until the call returns; librdkafka
    // copies them. An error is ours to destroy, once.
    unsafe {
        let error = rd_kafka_sasl_set_credentials(client.native_ptr(), username.as_ptr(), password.as_ptr());
        if !error.is_null() {
            rd_kafka_error_destroy(error);
            return false;
        }
    }
    true
}
