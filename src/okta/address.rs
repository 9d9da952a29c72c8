//! The address of an Okta organisation.

use url::Url;

/// Hosts below which organisations have their names.
const DOMAINS: [&str; 5] = [".okta.com", ".oktapreview.com", ".okta-emea.com", ".okta-gov.com", ".okta.mil"];

/// # Errors
/// It is the address of the Admin Console, or of something below the organisation. The message does not repeat it.
pub fn check(base_url: &Url) -> Result<(), String> {
    let host = base_url.host_str().unwrap_or_default();
    let name = DOMAINS.iter().find_map(|domain| Some((host.strip_suffix(domain)?, domain)));
    if let Some((_, domain)) = name.filter(|(name, _)| name.ends_with("-admin")) {
        return Err(format!(
            "base_url is the address of Okta's Admin Console, which does not serve the API; \
             → the Okta domain without -admin: base_url = \"https://…{domain}\""
        ));
    }
    if !matches!(base_url.path(), "" | "/") {
        return Err(
            "base_url has a path, and the API is found from the Okta domain alone; → base_url = \"https://acme.okta.com\""
                .to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_the_admin_console_and_a_path_are_refused_with_the_right_address() {
        let checked = |url: &str| check(&Url::parse(url).unwrap());
        for url in ["https://acme.okta.com", "https://acme.oktapreview.com/", "https://login-admin.acme.example"] {
            assert_eq!(checked(url), Ok(()), "{url}");
        }
        for url in ["https://acme-admin.okta.com", "https://acme-admin.okta-emea.com/"] {
            let error = checked(url).unwrap_err();
            assert!(error.contains("Admin Console") && error.contains("without -admin") && !error.contains("acme"));
        }
        assert!(checked("https://acme.okta.com/api/v1").unwrap_err().contains("has a path"));
    }
}
