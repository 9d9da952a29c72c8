//! Proofs that a client holds the key to which its access token is bound (RFC 9449, DPoP).
//!
//! A client begins without. It proves only if the token endpoint asks for it, and then from the first request on.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use reqwest::header::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use url::Url;

use super::assertion::Sources;
use super::error::ReadError;
use crate::directory::ReasonCode;
use crate::jwt::Signer;

/// The header of a proof (RFC 9449 §4.1).
pub(super) const PROOF: &str = "DPoP";
/// The header by which a server gives a nonce (RFC 9449 §8).
pub(super) const NONCE: &str = "DPoP-Nonce";
/// Bytes of a nonce; it becomes a part of a header.
const NONCE_BYTES_MAX: usize = 1_024;

/// The key of a client, and what the token endpoint wants of its proofs.
#[derive(Default)]
pub(super) struct Proofs {
    key: Option<Arc<Signer>>,
    nonce: Option<String>,
}

impl Proofs {
    /// The key to which tokens are bound; `None` if the token endpoint did not ask for proofs.
    pub(super) fn key(&self) -> Option<Arc<Signer>> {
        self.key.clone()
    }

    /// A proof for a request to the token endpoint, if it asks for them.
    ///
    /// # Errors
    /// As [`proof`].
    pub(super) fn of_token_request(&self, token_url: &Url, sources: Sources) -> Result<Option<String>, ReadError> {
        let proof = |key: &Arc<Signer>| proof(key, &Method::POST, token_url, self.nonce.as_deref(), None, sources);
        self.key.as_ref().map(proof).transpose()
    }

    /// True if the token endpoint refused a request for want of a proof, or of a nonce in it, and the next request has
    /// it (RFC 9449 §5, §8). `error`: of its answer.
    ///
    /// # Errors
    /// No key can be generated.
    pub(super) fn follow(&mut self, error: Option<&str>, nonce: Option<&str>) -> Result<bool, ReadError> {
        let nonce = nonce.filter(|nonce| fits(nonce));
        let asks = match error {
            Some("invalid_dpop_proof") => self.key.is_none(),
            Some("use_dpop_nonce") => nonce.is_some() && self.nonce.as_deref() != nonce,
            _ => false,
        };
        if let Some(nonce) = nonce {
            self.nonce = Some(nonce.to_owned());
        }
        if asks && self.key.is_none() {
            let key = Signer::generated("dpop+jwt");
            self.key = Some(Arc::new(key.map_err(|what| ReadError::new(ReasonCode::CredentialUnreadable, what))?));
        }
        Ok(asks)
    }
}

fn fits(nonce: &str) -> bool {
    !nonce.is_empty() && nonce.len() <= NONCE_BYTES_MAX
}

/// The nonce that an answer of a directory gives for the requests after it (RFC 9449 §8.2, §9).
pub(super) fn nonce_for_next(headers: &HeaderMap) -> Option<String> {
    let nonce = headers.get(NONCE)?.to_str().ok()?;
    fits(nonce).then(|| nonce.to_owned())
}

/// A proof for one request (RFC 9449 §4.2). `token`: the access token that goes with it.
///
/// # Errors
/// The key cannot sign.
pub(super) fn proof(
    key: &Signer,
    method: &Method,
    url: &Url,
    nonce: Option<&str>,
    token: Option<&SecretString>,
    sources: Sources,
) -> Result<String, ReadError> {
    let mut bare = url.clone();
    bare.set_query(None);
    bare.set_fragment(None);
    let mut claims = json!({
        "jti": format!("{:032x}", (sources.random)()),
        "htm": method.as_str(),
        "htu": bare.as_str(),
        "iat": (sources.now)().div_euclid(1_000),
    });
    if let Some(nonce) = nonce {
        claims["nonce"] = json!(nonce);
    }
    if let Some(token) = token {
        let hash = digest(&SHA256, token.expose_secret().as_bytes());
        claims["ath"] = json!(URL_SAFE_NO_PAD.encode(hash));
    }
    key.sign(&claims).map_err(|what| ReadError::new(ReasonCode::CredentialUnreadable, what))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_proof_has_the_claims_of_rfc_9449_and_the_key_that_verifies_it() {
        let sources = Sources { now: || 1_700_000_000_999, random: || 0xabc };
        let key = Signer::generated("dpop+jwt").unwrap();
        let url = Url::parse("https://acme.okta.com/api/v1/groups/1/users?limit=200#x").unwrap();
        let token = SecretString::from("token".to_owned());
        let signed = proof(&key, &Method::GET, &url, Some("n"), Some(&token), sources).unwrap();
        let header = jsonwebtoken::decode_header(&signed).unwrap();
        assert_eq!((header.typ.as_deref(), header.alg), (Some("dpop+jwt"), Algorithm::ES256));
        let jwk = header.jwk.expect("the public key");
        assert!(!serde_json::to_string(&jwk).unwrap().contains("\"d\""), "no private part");
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        let read = jsonwebtoken::decode::<Value>(&signed, &DecodingKey::from_jwk(&jwk).unwrap(), &validation).unwrap();
        assert_eq!(
            read.claims,
            json!({
                "jti": "00000000000000000000000000000abc",
                "htm": "GET",
                "htu": "https://acme.okta.com/api/v1/groups/1/users",
                "iat": 1_700_000_000,
                "nonce": "n",
                // SHA-256 of `token`.
                "ath": "PEaenWxYddN6Q_NT1PiOYfz4EsZu7jRXRlpAsNpBU-A",
            })
        );
    }

    #[test]
    fn proofs_begin_when_the_token_endpoint_asks_and_end_where_it_refuses_them() {
        let mut proofs = Proofs::default();
        assert!(!proofs.follow(Some("invalid_client"), None).unwrap() && proofs.key().is_none());
        assert!(proofs.follow(Some("invalid_dpop_proof"), None).unwrap() && proofs.key().is_some());
        assert!(!proofs.follow(Some("use_dpop_nonce"), None).unwrap(), "a nonce is missing");
        assert!(proofs.follow(Some("use_dpop_nonce"), Some("n")).unwrap());
        assert!(!proofs.follow(Some("use_dpop_nonce"), Some("n")).unwrap(), "it was sent");
        assert!(!proofs.follow(Some("invalid_dpop_proof"), None).unwrap(), "the proof is refused");
    }
}
