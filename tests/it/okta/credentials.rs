//! Credentials that Okta takes and refuses, each refusal in a sentence of its own with the remedy in Okta's words.

use super::org::Org;
use super::world::OktaWorld;

const ORG: &str = "user 00u1 ann ACTIVE\ngroup 00g1 OKTA_GROUP Team: 00u1\n";

fn body(code: &str) -> String {
    format!(r#"{{"errorCode":"{code}","errorSummary":"canary","errorLink":"{code}","errorId":"oae","errorCauses":[]}}"#)
}

#[tokio::test]
async fn a_token_travels_behind_ssws() {
    let world = OktaWorld::baseline(ORG).await;
    let seen = world.okta.shared().seen.clone();
    assert!(!seen.is_empty() && seen.iter().all(|seen| seen.authorization.starts_with("SSWS ")));
}

#[tokio::test]
async fn each_refusal_of_a_token_says_what_to_do_in_the_admin_console() {
    let mut world = OktaWorld::baseline(ORG).await;
    for (status, body, words) in [
        (
            401,
            body("E0000011"),
            "401: Okta refuses the API token (E0000011); → it ends after 30 days without use, when it is revoked, and \
             with the account that created it; in the Admin Console: Security > API > Tokens > Create token",
        ),
        (
            403,
            body("E0000006"),
            "403: the API token may not read this list (E0000006); → in the Admin Console: Security > Administrators: \
             give the account that created the token the role Read-only Administrator",
        ),
        (
            403,
            "<html>canary".to_owned(),
            "403 without an error code of the API: Okta refuses the address from which this machine connects; → in the \
             Admin Console: Security > Networks",
        ),
        (
            404,
            body("E0000022"),
            "404: Okta's API is not at this address (E0000022); → base_url is the Okta domain alone",
        ),
        (400, body("<script>canary"), "Okta answers HTTP 400; → ask Okta's support"),
        (500, body("E0000009"), "Okta answers HTTP 500 (E0000009); → try later"),
    ] {
        world.okta.faults(|faults| faults.refused = Some((status, vec![], body)));
        world.fails(&format!("Users: {words}")).await;
    }
    world.okta.faults(|faults| faults.refused = None);
    world.publishes(&[]).await;
}

#[tokio::test]
async fn an_app_is_let_in_by_a_signed_assertion() {
    let mut world = OktaWorld::with_app(Org::parse(ORG)).await;
    world.publishes(&[]).await;
    let shared = world.okta.shared();
    assert_eq!(shared.token_requests, 1);
    assert!(shared.seen.iter().all(|seen| seen.authorization.starts_with("Bearer ")));
}

#[tokio::test]
async fn an_organisation_that_asks_for_dpop_gets_a_proof_with_each_request() {
    let mut world = OktaWorld::with_app(Org::parse(ORG)).await;
    world.okta.faults(|faults| faults.dpop = true);
    world.publishes(&[]).await;
    {
        let shared = world.okta.shared();
        assert_eq!(shared.token_requests, 3, "without a proof, without a nonce, and then with both");
        assert!(shared.seen.iter().all(|seen| seen.authorization.starts_with("DPoP ")));
    }
    world.publishes(&[]).await;
    assert_eq!(world.okta.shared().token_requests, 3, "the token holds");
}

#[tokio::test]
async fn an_api_that_asks_for_its_own_nonce_gets_it_in_each_proof() {
    let mut world = OktaWorld::with_app(Org::parse(ORG)).await;
    world.okta.faults(|faults| faults.dpop = true);
    world.publishes(&[]).await;
    world.okta.asked();
    world.publishes(&[]).await;
    let without = world.okta.asked().len();
    for nonce in ["first", "second"] {
        world.okta.faults(|faults| faults.api_nonce = Some(nonce));
        world.publishes(&[]).await;
        assert_eq!(world.okta.asked().len(), without + 1, "one request comes again, with the nonce of the answer");
        assert_eq!(world.okta.shared().token_requests, 3, "the token holds");
    }
    world.okta.faults(|faults| {
        let challenge = "DPoP error=\"use_dpop_nonce\"".to_owned();
        let fields = vec![("www-authenticate", challenge), ("dpop-nonce", "n".repeat(5_000))];
        faults.refused = Some((401, fields, String::new()));
    });
    world.fails("Users: 401: Okta refuses the proof of possession (DPoP) of the request; → set the clock").await;
}

#[tokio::test]
async fn each_refusal_of_an_app_says_what_to_do_in_the_admin_console() {
    for (error, words) in [
        (
            "invalid_client",
            "400: the token endpoint refused the assertion of the client; → in the Admin Console: \
          Applications > the API service app > General: Public key / Private key",
        ),
        (
            "invalid_scope",
            "400: the token endpoint refused the scope; → in the Admin Console: Applications > the API \
          service app > Okta API Scopes: Grant okta.users.read and okta.groups.read",
        ),
        (
            "invalid_dpop_proof",
            "400: the token endpoint refused the request, because it asks for other proofs of \
          possession (DPoP) than scimtail sends; → in the Admin Console: Applications > the API service app > General: \
          clear \"Require Demonstrating Proof of Possession (DPoP) header in token requests\"",
        ),
    ] {
        let mut world = OktaWorld::with_app(Org::parse(ORG)).await;
        world.okta.faults(|faults| faults.token_error = Some(error));
        world.fails(words).await;
    }
    let challenge = |error: &str| {
        let text = format!("Bearer authorization_uri=\"http://acme.okta.com/oauth2/v1/authorize\", error=\"{error}\"");
        vec![("www-authenticate", text)]
    };
    for (status, headers, body, words) in [
        (
            403,
            challenge("insufficient_scope"),
            String::new(),
            "Users: 403: the access token lacks the scope okta.users.read; → in the Admin Console: Applications > the API \
             service app > Okta API Scopes > Grant okta.users.read",
        ),
        (
            401,
            challenge("invalid_dpop_proof"),
            String::new(),
            "Users: 401: Okta refuses the proof of possession (DPoP) of the request; → set the clock of this machine",
        ),
        (401, vec![], body("E0000011"), "Users: 401: Okta refuses the access token (E0000011); → in the Admin Console"),
        (
            403,
            vec![],
            body("E0000006"),
            "Users: 403: the app may not read this list (E0000006); → in the Admin Console: Applications > the API service \
             app > Admin roles: add Read-only Administrator",
        ),
    ] {
        let mut world = OktaWorld::with_app(Org::parse(ORG)).await;
        world.okta.faults(|faults| faults.refused = Some((status, headers, body)));
        world.fails(words).await;
    }
}
