//! Tokens for SASL OAUTHBEARER (RFC 7628): fetched once for all clients, and given to each of them.
//!
//! librdkafka can also ask for tokens through a callback. rdkafka serves that only while a client is polled, which its
//! admin client never is, and it passes on no extensions, which some clusters need (RFC 7628 §3.1). So a client gets its
//! token when it is made, and each newer one before the old one expires.

use std::ffi::{CString, c_char};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rdkafka::ClientContext;
use rdkafka::bindings::{rd_kafka_oauthbearer_set_token, rd_kafka_resp_err_t};
use rdkafka::client::Client;
use secrecy::{ExposeSecret, SecretString};
use tracing::{info, warn};

use crate::directory::Problem;
use crate::service::ServiceError;

/// A token is replaced after so much of its life, in percent. librdkafka shows it again after 90 % of a session
/// (KIP-368), and a session ends with its token.
const RENEWED_AFTER_PERCENT: i64 = 75;
/// Time between a failed attempt to replace a token and the next one, milliseconds.
const ATTEMPTS_APART_MS: i64 = 10_000;
/// Bytes of librdkafka's reason not to take a token.
const REASON_BYTES_MAX: usize = 256;

/// A bearer token (RFC 6750).
#[derive(Clone)]
pub struct BearerToken {
    pub secret: SecretString,
    /// Milliseconds since 1970-01-01 UTC.
    pub expires_at: i64,
}

/// Where tokens come from.
pub struct TokenSource {
    /// In words that reveal nothing.
    pub place: String,
    /// A hash of all that leads to another token.
    pub identity: u128,
    /// The name of this client in logs of librdkafka.
    pub principal: String,
    /// Further keys of the first message to a broker, with their values (RFC 7628 §3.1).
    pub extensions: Vec<(String, String)>,
    /// Fetches a token. Blocks for a bounded time.
    pub issue: Box<dyn Fn() -> Result<BearerToken, ServiceError> + Send + Sync>,
    /// Milliseconds since 1970-01-01 UTC.
    pub clock: fn() -> i64,
}

/// The token of all clients. Clones share it.
#[derive(Clone)]
pub struct Tokens(Arc<Shared>);

struct Shared {
    source: TokenSource,
    held: Mutex<Held>,
    /// Locked while a token is fetched: another client that needs one waits for it.
    turn: Mutex<()>,
    /// A thread fetches the next token.
    renewing: AtomicBool,
}

#[derive(Default)]
struct Held {
    token: Option<Issued>,
    /// Of the newest attempt, if it failed.
    failed: Option<ServiceError>,
    /// When the newest attempt ended.
    tried_at: i64,
    attempts: u64,
}

#[derive(Clone)]
struct Issued {
    token: BearerToken,
    issued_at: i64,
    number: u64,
}

impl Issued {
    fn holds(&self, now: i64) -> bool {
        now < self.token.expires_at
    }

    fn is_due(&self, now: i64) -> bool {
        let life = self.token.expires_at - self.issued_at;
        // A clock that was set back says nothing about how long the token still holds.
        now < self.issued_at || now - self.issued_at >= life / 100 * RENEWED_AFTER_PERCENT
    }
}

/// Which token a client was given last.
#[derive(Debug, Default)]
pub struct Given(AtomicU64);

impl Tokens {
    pub fn new(source: TokenSource) -> Tokens {
        let (held, turn, renewing) = (Mutex::default(), Mutex::default(), AtomicBool::default());
        Tokens(Arc::new(Shared { source, held, turn, renewing }))
    }

    /// Gives a client a token that holds. If there is none, one is fetched; that blocks.
    ///
    /// # Errors
    /// None is issued.
    pub fn give<C: ClientContext>(&self, client: &Client<C>, given: &Given) -> Result<(), ServiceError> {
        let issued = match self.holding() {
            Some(issued) => issued,
            None => self.fetch()?,
        };
        self.hand_over(client, &issued, given)
    }

    /// Gives a client the newest token, if it has another one. If a newer one is due, it is fetched meanwhile: the call
    /// never waits.
    pub fn renew<C: ClientContext>(&self, client: &Client<C>, given: &Given) {
        // The token before stays, and the next attempt follows.
        if let Some(issued) = self.holding()
            && let Err(error) = self.hand_over(client, &issued, given)
        {
            warn!(reason = %error, "a client of Kafka does not take a token");
        }
    }

    fn hand_over<C: ClientContext>(
        &self,
        client: &Client<C>,
        issued: &Issued,
        given: &Given,
    ) -> Result<(), ServiceError> {
        if given.0.swap(issued.number, Ordering::Relaxed) == issued.number {
            return Ok(());
        }
        self.set(client, &issued.token)
    }

    /// The token, if it holds. If another one is due, a thread fetches it.
    fn holding(&self) -> Option<Issued> {
        let now = (self.0.source.clock)();
        let (token, failed_at) = {
            let held = self.held();
            (held.token.clone(), held.failed.as_ref().map(|_| held.tried_at))
        };
        let may_try = failed_at.is_none_or(|at| !(0..ATTEMPTS_APART_MS).contains(&(now - at)));
        if token.as_ref().is_none_or(|issued| issued.is_due(now)) && may_try {
            self.fetch_meanwhile();
        }
        token.filter(|issued| issued.holds(now))
    }

    fn fetch_meanwhile(&self) {
        /// Says that the thread has ended, however it ends.
        struct Renewing(Tokens);
        impl Drop for Renewing {
            fn drop(&mut self) {
                self.0.0.renewing.store(false, Ordering::Release);
            }
        }
        if self.held().token.is_none() || self.0.renewing.swap(true, Ordering::AcqRel) {
            return;
        }
        let renewing = Renewing(self.clone());
        // A failure is kept and said where it happens. A thread that does not start drops `renewing` too.
        drop(thread::Builder::new().spawn(move || drop(renewing.0.fetch())));
    }

    /// Why there is no token that holds, if that is so.
    pub fn failure(&self) -> Option<ServiceError> {
        let now = (self.0.source.clock)();
        let held = self.held();
        let holds = held.token.as_ref().is_some_and(|issued| issued.holds(now));
        held.failed.clone().filter(|_| !holds)
    }

    /// A token that is not due, fetched unless another client has fetched one meanwhile. Blocks.
    fn fetch(&self) -> Result<Issued, ServiceError> {
        let clock = self.0.source.clock;
        let attempts = self.held().attempts;
        let _turn = self.0.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let still_holds = {
            let (held, now) = (self.held(), clock());
            match (&held.token, &held.failed) {
                (Some(issued), _) if !issued.is_due(now) => return Ok(issued.clone()),
                // Another client's attempt failed while this one waited for its turn.
                (_, Some(error)) if held.attempts != attempts => return Err(error.clone()),
                (token, _) => token.as_ref().is_some_and(|issued| issued.holds(now)),
            }
        };
        let issued_at = clock();
        let issued = (self.0.source.issue)();
        let mut held = self.held();
        held.attempts += 1;
        held.tried_at = clock();
        match issued {
            Ok(token) => {
                if held.failed.take().is_some() {
                    info!(source = self.0.source.place, "Kafka's tokens are issued again");
                }
                let issued = Issued { token, issued_at, number: held.attempts };
                held.token = Some(issued.clone());
                Ok(issued)
            }
            Err(error) => {
                if held.failed.is_none() && still_holds {
                    warn!(reason = %error, "no new token for Kafka; the old one still holds");
                }
                held.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// librdkafka does not take the token.
    fn set<C: ClientContext>(&self, client: &Client<C>, token: &BearerToken) -> Result<(), ServiceError> {
        let TokenSource { principal, extensions, .. } = &self.0.source;
        let texts = extensions.iter().flat_map(|(key, value)| [key, value]).map(String::as_str);
        let all = [token.secret.expose_secret(), principal.as_str()].into_iter().chain(texts).map(CString::new);
        let all: Vec<CString> = all
            .collect::<Result<_, _>>()
            .map_err(|_| ServiceError::refused("a token for Kafka, or an extension of it, holds a zero byte"))?;
        if set_token(client, &all[0], &all[1], &all[2..], token.expires_at) {
            return Ok(());
        }
        // librdkafka's reason repeats the token.
        let problem = Problem::new("a token for Kafka holds characters that SASL does not take, or has expired");
        Err(ServiceError::refused(problem.with_remedy("check [kafka.oauth] or [kafka.msk_iam], and the clock")))
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Tokens({})", self.0.source.place)
    }
}

impl PartialEq for Tokens {
    fn eq(&self, other: &Tokens) -> bool {
        self.0.source.identity == other.0.source.identity
    }
}

impl Eq for Tokens {}

/// `extensions`: keys and values in turn. True if librdkafka takes the token.
#[expect(unsafe_code, reason = "rdkafka has no such call")]
fn set_token<C: ClientContext>(
    client: &Client<C>,
    token: &CString,
    principal: &CString,
    extensions: &[CString],
    expires_at: i64,
) -> bool {
    let mut extensions: Vec<*const c_char> = extensions.iter().map(|text| text.as_ptr()).collect();
    let mut reason = [0u8; REASON_BYTES_MAX];
    // SAFETY: the client lives as long as it is borrowed, and this function may be called from any thread, because
    // librdkafka locks what it changes. All texts end with a zero byte and live until the call returns; librdkafka
    // copies them. It writes at most so many bytes of the reason as there are.
    let code = unsafe {
        rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            token.as_ptr(),
            expires_at,
            principal.as_ptr(),
            extensions.as_mut_ptr(),
            extensions.len(),
            reason.as_mut_ptr().cast(),
            reason.len(),
        )
    };
    code == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::AtomicI64;

    use rdkafka::config::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};

    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    /// 2100-01-01, because librdkafka takes only tokens that hold.
    const BEGIN: i64 = 4_102_444_800_000;

    /// Answers one after the other: how long each token holds, or a failure. `clock` is one of its own for each test.
    fn tokens(clock: fn() -> i64, answers: &[Result<i64, &'static str>]) -> Tokens {
        let answers = Mutex::new(VecDeque::from(answers.to_vec()));
        let issue = move || match answers.lock().unwrap().pop_front().expect("no further token is asked for") {
            Ok(life) => Ok(BearerToken { secret: SecretString::from("token".to_owned()), expires_at: clock() + life }),
            Err(what) => Err(ServiceError::unreachable(what)),
        };
        Tokens::new(TokenSource {
            place: "a test".to_owned(),
            identity: 0,
            principal: "scimtail".to_owned(),
            extensions: vec![("logicalCluster".to_owned(), "lkc-1".to_owned())],
            issue: Box::new(issue),
            clock,
        })
    }

    fn client() -> BaseConsumer<DefaultConsumerContext> {
        let mut config = ClientConfig::new();
        config.set("security.protocol", "sasl_plaintext").set("sasl.mechanism", "OAUTHBEARER").set("group.id", "a");
        config.create_with_context(DefaultConsumerContext).unwrap()
    }

    /// Until the thread that fetches the next token has ended.
    fn fetched(tokens: &Tokens) {
        while tokens.0.renewing.load(Ordering::Acquire) {
            thread::yield_now();
        }
    }

    fn number(given: &Given) -> u64 {
        given.0.load(Ordering::Relaxed)
    }

    #[test]
    fn all_clients_share_a_token_and_the_next_one_is_fetched_after_three_quarters_of_its_life() {
        static NOW: AtomicI64 = AtomicI64::new(BEGIN);
        let tokens = tokens(|| NOW.load(Ordering::Relaxed), &[Ok(HOUR_MS), Ok(HOUR_MS)]);
        let (one, other) = (client(), client());
        let (given, given_other) = (Given::default(), Given::default());
        tokens.give(one.client(), &given).unwrap();
        tokens.give(other.client(), &given_other).unwrap();
        NOW.fetch_add(HOUR_MS / 4 * 3 - 1, Ordering::Relaxed);
        tokens.give(one.client(), &given).unwrap();
        fetched(&tokens);
        assert_eq!((number(&given), number(&given_other)), (1, 1));
        NOW.fetch_add(1, Ordering::Relaxed);
        tokens.give(other.client(), &given_other).unwrap();
        fetched(&tokens);
        tokens.renew(one.client(), &given);
        tokens.renew(other.client(), &given_other);
        assert_eq!((number(&given), number(&given_other)), (2, 2));
    }

    #[test]
    fn without_a_new_token_the_old_one_is_used_as_long_as_it_holds() {
        static NOW: AtomicI64 = AtomicI64::new(BEGIN);
        let answers = [Ok(HOUR_MS), Err("away"), Err("still away"), Ok(HOUR_MS)];
        let tokens = tokens(|| NOW.load(Ordering::Relaxed), &answers);
        let (one, given) = (client(), Given::default());
        tokens.give(one.client(), &given).unwrap();
        NOW.fetch_add(HOUR_MS - 1, Ordering::Relaxed);
        // No client waits for an attempt, and of several soon after another only one is made.
        for _ in 0..3 {
            tokens.give(one.client(), &given).unwrap();
            fetched(&tokens);
        }
        assert_eq!(tokens.failure(), None, "the old one still holds");
        NOW.fetch_add(1, Ordering::Relaxed);
        assert_eq!(tokens.give(one.client(), &given), Err(ServiceError::unreachable("still away")));
        assert_eq!(tokens.failure(), Some(ServiceError::unreachable("still away")));
        tokens.give(one.client(), &given).unwrap();
        assert_eq!((tokens.failure(), number(&given)), (None, 4));
    }

    #[test]
    fn a_clock_that_is_set_back_makes_a_token_due() {
        static NOW: AtomicI64 = AtomicI64::new(BEGIN);
        let tokens = tokens(|| NOW.load(Ordering::Relaxed), &[Ok(HOUR_MS), Ok(HOUR_MS)]);
        let (one, given) = (client(), Given::default());
        tokens.give(one.client(), &given).unwrap();
        NOW.fetch_sub(HOUR_MS, Ordering::Relaxed);
        tokens.renew(one.client(), &given);
        fetched(&tokens);
        tokens.renew(one.client(), &given);
        assert_eq!(number(&given), 2);
    }

    #[test]
    fn what_librdkafka_does_not_take_is_refused_without_being_repeated() {
        let source = |secret: &'static str, extension: &str| TokenSource {
            place: String::new(),
            identity: 0,
            principal: "scimtail".to_owned(),
            extensions: vec![(extension.to_owned(), "value".to_owned())],
            issue: Box::new(|| Ok(BearerToken { secret: SecretString::from(secret.to_owned()), expires_at: BEGIN })),
            clock: || 0,
        };
        for (secret, extension) in
            [("4ca9ary\0", "key"), ("4ca9ary\u{1}", "key"), ("4ca9ary", "auth"), ("4ca9ary", "a1")]
        {
            let refused = Tokens::new(source(secret, extension)).give(client().client(), &Given::default());
            let text = refused.unwrap_err().to_string();
            assert!(text.contains("token for Kafka") && !text.contains("4ca9ary"), "{text}");
        }
    }
}
