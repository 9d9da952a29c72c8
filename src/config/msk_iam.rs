//! `[kafka.msk_iam]`: tokens of Amazon MSK, signed with the AWS credentials of this machine. No server issues them.

use std::error::Error;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_types::region::Region;
use secrecy::SecretString;
use serde::Deserialize;

use super::oauth::on_a_runtime_of_its_own;
use crate::directory::Problem;
use crate::kafka::oauth::{BearerToken, TokenSource, Tokens};
use crate::schedule::now_millis;
use crate::service::ServiceError;

/// For the credentials: on a machine outside of AWS, a request to the metadata service is not answered.
const CREDENTIALS_WAIT: Duration = Duration::from_secs(10);
/// The name of a session with an assumed role, in AWS's logs.
const SESSION: &str = "scimtail";
const NAME_BYTES_MAX: usize = 2_048;

/// `[kafka.msk_iam]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MskIamSection {
    /// Region of the cluster, e.g. `"eu-central-1"`.
    region: String,
    /// Profile of the AWS configuration.
    /// Default: the credentials of the machine
    profile: Option<String>,
    /// Role that is assumed first. Not together with `profile`.
    /// Default: the credentials of the machine
    role_arn: Option<String>,
}

impl MskIamSection {
    /// # Errors
    /// The first wrong key, with the remedy. Never repeats a value, which may be a secret by mistake.
    pub fn check(self) -> Result<Tokens, String> {
        let is_region = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        };
        if self.region.len() > NAME_BYTES_MAX || !is_region(&self.region) {
            return Err("region is not the name of a region of AWS; → region = \"eu-central-1\"".to_owned());
        }
        for (key, value) in [("profile", &self.profile), ("role_arn", &self.role_arn)] {
            let is_name = |text: &String| !text.is_empty() && text.len() <= NAME_BYTES_MAX && is_visible(text);
            if value.as_ref().is_some_and(|text| !is_name(text)) {
                return Err(format!("{key} is empty or holds characters that no name has"));
            }
        }
        if self.role_arn.as_ref().is_some_and(|arn| !arn.starts_with("arn:")) {
            return Err("role_arn is not an ARN; → role_arn = \"arn:aws:iam::ACCOUNT:role/NAME\"".to_owned());
        }
        if self.profile.is_some() && self.role_arn.is_some() {
            return Err("profile and role_arn are both given; → remove one, a profile can name a role".to_owned());
        }
        let identity = xxhash_rust::xxh3::xxh3_128(format!("msk_iam {self:?}").as_bytes());
        Ok(Tokens::new(TokenSource {
            place: "the AWS credentials of this machine".to_owned(),
            identity,
            principal: "scimtail".to_owned(),
            extensions: Vec::new(),
            issue: Box::new(move || on_a_runtime_of_its_own(self.issue())),
            clock: now_millis,
        }))
    }

    async fn issue(&self) -> Result<BearerToken, ServiceError> {
        let region = Region::new(self.region.clone());
        let signing = async {
            match (&self.profile, &self.role_arn) {
                (Some(profile), _) => {
                    aws_msk_iam_sasl_signer::generate_auth_token_from_profile(region, profile.clone()).await
                }
                (None, Some(role)) => {
                    let (role, session) = (role.clone(), SESSION.to_owned());
                    aws_msk_iam_sasl_signer::generate_auth_token_from_role(region, role, session).await
                }
                (None, None) => aws_msk_iam_sasl_signer::generate_auth_token(region).await,
            }
        };
        match tokio::time::timeout(CREDENTIALS_WAIT, signing).await {
            Ok(Ok((token, expires_at))) => Ok(BearerToken { secret: SecretString::from(token), expires_at }),
            Ok(Err(error)) => Err(self.explain(&error)),
            Err(_) => Err(ServiceError::unreachable(at("AWS gives no credentials in time", CREDENTIALS))),
        }
    }

    /// What AWS says may hold names and numbers of accounts, so that it is not repeated.
    fn explain(&self, error: &(dyn Error + 'static)) -> ServiceError {
        // The signer's own type is private; its source is not.
        match error.source().and_then(|source| source.downcast_ref::<CredentialsError>()) {
            Some(CredentialsError::ProviderTimedOut(_)) => {
                ServiceError::unreachable(at("AWS gives no credentials in time", CREDENTIALS))
            }
            Some(CredentialsError::CredentialsNotLoaded(_)) => {
                ServiceError::refused(at("there are no AWS credentials", CREDENTIALS))
            }
            Some(CredentialsError::InvalidConfiguration(_)) => {
                ServiceError::refused(at("the AWS credentials cannot be used", CREDENTIALS))
            }
            // AWS refuses, or does not answer: its types do not tell.
            Some(_) if self.role_arn.is_some() => ServiceError::unreachable(at(
                "AWS does not let this machine assume role_arn",
                "check role_arn, the trust policy of the role, and the way to AWS",
            )),
            Some(_) => ServiceError::unreachable(at("AWS gives no credentials", CREDENTIALS)),
            None => ServiceError::refused(at("no token can be signed with the AWS credentials", CREDENTIALS)),
        }
    }
}

const CREDENTIALS: &str = "a role of the instance, task or service account, AWS_PROFILE, or AWS_ACCESS_KEY_ID and \
                           AWS_SECRET_ACCESS_KEY";

fn at(what: &str, remedy: &str) -> Problem {
    Problem::new(format!("[kafka.msk_iam]: {what}")).with_remedy(remedy)
}

fn is_visible(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> Result<MskIamSection, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn each_wrong_key_has_its_sentence_and_is_not_repeated() {
        for (text, words) in [
            ("region = \"4CA9ARY\"", "region is not the name of a region of AWS; → region ="),
            ("region = \"\"", "region is not the name of a region"),
            ("region = \"eu-central-1\"\nprofile = \"4CA9ARY 1\"", "profile is empty or holds characters"),
            ("region = \"eu-central-1\"\nrole_arn = \"4CA9ARY\"", "role_arn is not an ARN; → role_arn ="),
            (
                "region = \"eu-central-1\"\nrole_arn = \"arn:aws:iam::1:role/a\"\nprofile = \"4CA9ARY\"",
                "profile and role_arn are both given; → remove one",
            ),
        ] {
            let Err(error) = section(text).unwrap().check() else { panic!("{text} is accepted") };
            assert!(error.contains(words) && !error.contains("4CA9ARY"), "{error}");
        }
        assert!(section("").unwrap_err().contains("missing field `region`"));
        let checked = |text: &str| section(text).unwrap().check().unwrap();
        assert_eq!(checked("region = \"us-gov-east-1\""), checked("region = \"us-gov-east-1\""));
        assert_ne!(checked("region = \"us-gov-east-1\""), checked("region = \"us-gov-west-1\""));
    }
}
