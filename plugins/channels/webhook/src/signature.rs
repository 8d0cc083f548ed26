//! Signatures as [Standard Webhooks](https://www.standardwebhooks.com) 1.0 has them, so that a receiver checks
//! them with a library that is there already: HMAC-SHA256 over `id.timestamp.body`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// What a secret begins with.
pub const PREFIX: &str = "whsec_";
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Signs requests, and knows those that were signed with the same secret.
#[derive(Clone)]
pub struct Signer(Hmac<Sha256>);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    /// With this secret.
    ///
    /// # Errors
    /// What is wrong with it, without a part of it.
    pub fn new(secret: &str) -> Result<Self, String> {
        let encoded = secret.strip_prefix(PREFIX).ok_or_else(|| format!("the secret does not begin with {PREFIX}"))?;
        let bytes = STANDARD.decode(encoded).map_err(|_| format!("what follows {PREFIX} is not base64"))?;
        if !SECRET_BYTES.contains(&bytes.len()) {
            return Err(format!(
                "the secret has {} bytes, and {} to {} are asked for",
                bytes.len(),
                SECRET_BYTES.start(),
                SECRET_BYTES.end()
            ));
        }
        Hmac::new_from_slice(&bytes).map(Self).map_err(|error| error.to_string())
    }

    /// The header `webhook-signature`. `at_secs` is the Unix time in the header `webhook-timestamp`.
    pub fn sign(&self, id: &str, at_secs: i64, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{at_secs}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }

    /// Whether one of the signatures in a header `webhook-signature` is that of this message. Takes as long for a wrong
    /// one as for a right one.
    pub fn has_signed(&self, id: &str, at_secs: i64, body: &[u8], signatures: &str) -> bool {
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{at_secs}.").as_bytes());
        mac.update(body);
        let given = signatures.split(' ').take(SIGNATURES_MAX).filter_map(|signature| signature.strip_prefix("v1,"));
        given.filter_map(|signature| STANDARD.decode(signature).ok()).any(|signature| mac.clone().verify_slice(&signature).is_ok())
    }
}

/// Signatures that are looked at: those of a secret, and of some that it replaces.
const SIGNATURES_MAX: usize = 8;

/// The id of the request that carries these tasks: the same whenever it carries the same ones. That of a task
/// alone is its own.
pub fn request_id(task_ids: &[&str]) -> String {
    match task_ids {
        [alone] => (*alone).to_owned(),
        many => {
            let mut hash = Sha256::new();
            many.iter().for_each(|id| hash.update(id));
            hex::encode(&hash.finalize()[..16])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn signatures_are_those_of_the_specification() {
        // The example of the specification's own libraries.
        let signature =
            Signer::new(SECRET).expect("a secret").sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_was_signed_is_known() {
        let signer = Signer::new(SECRET).expect("a secret");
        let signature = signer.sign("m1", 5, b"body");
        for (signatures, is) in [
            (signature.as_str(), true),
            (&format!("v2,x v1,AAAA {signature}"), true),
            (&format!("{signature}x"), false),
            (&signature[..signature.len() - 4], false),
            ("", false),
        ] {
            assert_eq!(signer.has_signed("m1", 5, b"body", signatures), is, "{signatures}");
        }
        assert!(!signer.has_signed("m1", 6, b"body", &signature) && !signer.has_signed("m1", 5, b"bod", &signature));
    }

    #[test]
    fn a_secret_that_is_none_is_refused_without_being_shown() {
        for secret in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_###", "whsec_c2hvcnQ="] {
            let error = Signer::new(secret).expect_err("refused");
            assert!(!error.contains("MfKQ") && !error.contains("c2hv"), "{error}");
        }
    }

    #[test]
    fn the_same_tasks_have_the_same_id() {
        assert_eq!(request_id(&["a"]), "a");
        assert_eq!(request_id(&["a", "b"]), request_id(&["a", "b"]));
        assert_ne!(request_id(&["a", "b"]), request_id(&["a", "c"]));
        assert_eq!(request_id(&["a", "b"]).len(), 32);
    }
}
