//! Signed JSON Web Tokens (RFC 7519): security event tokens, the assertions of OAuth2 clients, and DPoP proofs.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// Signs tokens of one type with one key.
pub struct Signer {
    key: EncodingKey,
    header: Header,
}

impl Signer {
    /// A private key in PEM: elliptic curve P-256 signs as ES256, RSA as RS256 (RFC 7518 §3.1). `typ` and `key_id`: the
    /// header fields `typ` and `kid` (RFC 7515 §4.1).
    ///
    /// # Errors
    /// Says which keys are accepted, and nothing about the given one.
    pub fn from_pem(pem: &[u8], typ: &str, key_id: Option<&str>) -> Result<Signer, String> {
        let keys =
            [(Algorithm::ES256, EncodingKey::from_ec_pem(pem)), (Algorithm::RS256, EncodingKey::from_rsa_pem(pem))];
        for (algorithm, key) in keys {
            let Ok(key) = key else { continue };
            let mut header = Header::new(algorithm);
            header.typ = Some(typ.to_owned());
            header.kid = key_id.map(str::to_owned);
            let signer = Signer { key, header };
            // Only signing shows a wrong curve, or a key that is too short.
            if signer.sign(&json!({})).is_ok() {
                return Ok(signer);
            }
        }
        Err("is not a private key that can sign; → use PEM, PKCS#8: elliptic curve P-256, or RSA of 2048 bits or more"
            .to_owned())
    }

    /// A new private key that signs as ES256, with its public key in the header `jwk` (RFC 7515 §4.1.3). The key lives as
    /// long as the value, and nothing else has it.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn generated(typ: &str) -> Result<Signer, String> {
        let failed = || "no key for signatures can be generated".to_owned();
        let pair = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let key = EncodingKey::from_ec_der(pair.map_err(|_| failed())?.as_ref());
        let mut public = Jwk::from_encoding_key(&key, Algorithm::ES256).map_err(|_| failed())?;
        public.common.key_algorithm = None;
        let mut header = Header::new(Algorithm::ES256);
        (header.typ, header.jwk) = (Some(typ.to_owned()), Some(public));
        Ok(Signer { key, header })
    }

    /// The token in its compact form (RFC 7515 §3.1).
    ///
    /// # Errors
    /// The key cannot sign; [`Signer::from_pem`] refuses such keys.
    pub fn sign(&self, claims: &Value) -> Result<String, String> {
        jsonwebtoken::encode(&self.header, claims, &self.key).map_err(|_| "the token cannot be signed".to_owned())
    }
}
