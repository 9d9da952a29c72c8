//! How an OAuth2 client proves itself with a private key: a signed assertion (RFC 7523 §2.2, `private_key_jwt`).

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use url::Url;

use super::error::ReadError;
use crate::directory::{Problem, ReasonCode};
use crate::jwt::Signer;

/// `client_assertion_type` of a token request (RFC 7523 §2.2).
pub(super) const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Seconds that an assertion holds.
const LIFETIME: i64 = 60;

/// What an assertion takes of the world around it.
#[derive(Clone, Copy)]
pub struct Sources {
    /// Milliseconds since 1970-01-01 UTC.
    pub now: fn() -> i64,
    /// A number that was never returned before, for all practical purposes.
    pub random: fn() -> u128,
}

/// The key of a client in PEM, ready to sign.
///
/// # Errors
/// It is not a key that can sign. The message does not repeat it.
pub(super) fn signer(pem: &SecretString, key_id: Option<&str>) -> Result<Signer, ReadError> {
    Signer::from_pem(pem.expose_secret().as_bytes(), "JWT", key_id).map_err(|_| {
        let problem = Problem::new("private_key_file holds no private key that can sign")
            .with_remedy("use PEM, PKCS#8: elliptic curve P-256, or RSA of 2048 bits or more");
        ReadError::new(ReasonCode::CredentialUnreadable, problem)
    })
}

/// An assertion that this client asks this token endpoint, once (RFC 7523 §3).
///
/// # Errors
/// As [`signer`].
pub(super) fn assertion(
    pem: &SecretString,
    key_id: Option<&str>,
    client_id: &str,
    token_url: &Url,
    sources: Sources,
) -> Result<String, ReadError> {
    let issued_at = (sources.now)().div_euclid(1_000);
    let claims = json!({
        "iss": client_id,
        "sub": client_id,
        "aud": token_url.as_str(),
        "jti": format!("{:032x}", (sources.random)()),
        "iat": issued_at,
        "exp": issued_at + LIFETIME,
    });
    let signed = signer(pem, key_id)?.sign(&claims);
    signed.map_err(|what| ReadError::new(ReasonCode::CredentialUnreadable, what))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};
    use serde_json::Value;

    use super::*;

    fn key(name: &str) -> SecretString {
        let path = format!("{}/tests/keys/{name}", env!("CARGO_MANIFEST_DIR"));
        SecretString::from(std::fs::read_to_string(path).unwrap())
    }

    #[test]
    fn an_assertion_has_the_claims_of_rfc_7523_and_the_signature_of_the_key() {
        let sources = Sources { now: || 1_700_000_000_999, random: || 0xabc };
        let token_url = Url::parse("https://login.example/acme/token").unwrap();
        for (private, public, algorithm) in [
            ("p256.pem", DecodingKey::from_ec_pem(key("p256.pub.pem").expose_secret().as_bytes()), Algorithm::ES256),
            ("rsa.pem", DecodingKey::from_rsa_pem(key("rsa.pub.pem").expose_secret().as_bytes()), Algorithm::RS256),
        ] {
            let token = assertion(&key(private), Some("key-1"), "client", &token_url, sources).unwrap();
            let mut validation = Validation::new(algorithm);
            validation.set_audience(&["https://login.example/acme/token"]);
            validation.validate_exp = false;
            let read = jsonwebtoken::decode::<Value>(&token, &public.unwrap(), &validation).unwrap();
            assert_eq!(
                read.claims,
                json!({
                    "iss": "client",
                    "sub": "client",
                    "aud": "https://login.example/acme/token",
                    "jti": "00000000000000000000000000000abc",
                    "iat": 1_700_000_000,
                    "exp": 1_700_000_060,
                })
            );
            assert_eq!((read.header.kid.as_deref(), read.header.typ.as_deref()), (Some("key-1"), Some("JWT")));
            let token = assertion(&key(private), None, "client", &token_url, sources).unwrap();
            assert_eq!(jsonwebtoken::decode_header(&token).unwrap().kid, None);
        }
    }

    #[test]
    fn a_key_that_cannot_sign_is_refused_without_being_repeated() {
        for pem in [key("p384.pem"), key("p256.pub.pem"), SecretString::from("4ca9ary".to_owned())] {
            let Err(error) = signer(&pem, None) else { panic!("it is not a key") };
            let text = error.to_string();
            assert!(text.starts_with("private_key_file holds no private key that can sign; → use PEM"), "{text}");
            assert!(!text.contains("4ca9ary") && !text.contains("BEGIN"), "{text}");
        }
    }
}
