//! Answers that do not arrive, or not as HTTP demands.

use std::time::{Duration, Instant};

use futures::future::join_all;
use scimtail::scim::Patience;
use scimtail::scim::client::BODY_BYTES_MAX;

use super::script::{Delivery, Effect, GROUPS, USERS, always, gzip_bomb, on};
use super::server::Elsewhere;
use super::world::{HISTORY, HostileWorld, TRIES, impatient, patient};

/// Bytes that the network takes of one answer beyond those that are read: the buffers of two sockets. They grow to what
/// the kernel permits if the reader is slow.
fn buffers() -> u64 {
    let largest = |name: &str| -> u64 {
        let limits = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
        limits.split_whitespace().nth(2).and_then(|bytes| bytes.parse().ok()).unwrap_or(16 << 20)
    };
    largest("tcp_rmem") + largest("tcp_wmem")
}
/// Far more than any of these tests needs, far less than for ever.
const SOON: Duration = Duration::from_secs(45);

#[tokio::test(flavor = "multi_thread")]
async fn a_server_error_on_any_page_fails_the_sync_after_a_bounded_number_of_tries() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    for status in [500, 502, 503, 504] {
        for (list, page) in [(USERS, 1), (USERS, 2), (USERS, 4), (GROUPS, 1), (GROUPS, 2)] {
            world.fails([on(list).page(page).then(Effect::Status(status))], "unavailable").await;
            let asked = world.server.requests_for(list);
            let tries = asked.iter().filter(|request| request.place.page == page).count();
            assert_eq!(tries, TRIES, "{status} on page {page} of {list:?}");
        }
    }
    world.calm(HISTORY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_that_fails_is_made_up_for_by_the_next_one() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    let script = [
        on(USERS).page(1).attempt(1).then(Effect::Status(503)),
        on(USERS).page(2).attempt(1).then(Effect::Deliver(Delivery::Reset(None))),
        on(USERS).page(3).attempt(1).then(Effect::Deliver(Delivery::Cut(40))),
        on(GROUPS).page(1).attempt(1).then(Effect::Status(429)),
    ];
    world.publishes(script, HISTORY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_fails_the_sync() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    for delivery in [
        Delivery::Reset(None),
        Delivery::Reset(Some(0)),
        Delivery::Reset(Some(60)),
        Delivery::Cut(0),
        Delivery::Cut(60),
        Delivery::Raw(Vec::new()),
    ] {
        for page in [1, 3] {
            world.fails([on(USERS).page(page).then(Effect::Deliver(delivery.clone()))], "unreachable").await;
            assert!(world.server.requests().len() <= page - 1 + TRIES);
        }
    }
    world.calm(HISTORY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_http_fails_the_sync() {
    let mut world = HostileWorld::baseline(7).await.with_patience(impatient());
    world.make_history();
    let list = r#"{"totalResults":0,"Resources":[]}"#;
    for answer in [
        "SSH-2.0-OpenSSH_9.9\r\n".to_owned(),
        format!("HTTP/9.9 200 OK\r\ncontent-length: {}\r\n\r\n{list}", list.len()),
        format!("HTTP/1.1 99999 OK\r\ncontent-length: {}\r\n\r\n{list}", list.len()),
        format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: {}\r\n\r\n{list}", list.len()),
        format!("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{list}"),
        format!("HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999999\r\n\r\n{list}"),
        format!("HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\n{list}"),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{list}\r\n0\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-21\r\n{list}\r\n0\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551614\r\n\r\n{list}"),
    ] {
        let raw = Delivery::Raw(answer.into_bytes());
        world.fails([on(USERS).page(2).then(Effect::Deliver(raw))], "unreachable").await;
    }
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
    let raw = Delivery::Raw(upgrade.into());
    world.fails([on(USERS).page(2).then(Effect::Deliver(raw))], "http_status").await;
    world = world.with_patience(patient());
    world.calm(HISTORY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_content_length_never_passes_for_a_shorter_list() {
    let mut world = HostileWorld::baseline(7).await.with_patience(impatient());
    world.make_history();
    for page in [1, 2] {
        let too_long = Effect::Deliver(Delivery::LengthOff(50));
        world.fails([on(USERS).page(page).then(too_long)], "unreachable").await;
        let too_short = Effect::Deliver(Delivery::LengthOff(-20));
        world.fails([on(USERS).page(page).then(too_short)], "not_a_list_response").await;
    }
    world = world.with_patience(patient());
    world.calm(HISTORY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_answer_behind_the_first_is_not_taken_for_the_next_page() {
    let mut world = HostileWorld::baseline(9).await;
    world.make_history();
    let empty = r#"{"totalResults":0,"Resources":[]}"#;
    let smuggled = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{empty}", empty.len()).into_bytes();
    for list in [USERS, GROUPS] {
        world.server.script([on(list).then(Effect::Deliver(Delivery::Trailed(smuggled.clone())))]);
        world.sync().await;
        assert!(world.lines().iter().all(|line| HISTORY.contains(&line.as_str())), "{:?}", world.lines());
    }
    world.server.script([]);
    world.completed().await;
    assert_eq!(world.lines(), *HISTORY);
}

#[tokio::test(flavor = "multi_thread")]
async fn g11_a_server_that_never_finishes_an_answer_does_not_hang_the_sync() {
    let list = br#"{"totalResults":0,"Resources":[]}"#.to_vec();
    let drip = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let deliveries = [
        Delivery::Silence,
        // Never silent long enough, and never done: 20 ms for each of some hundred bytes.
        Delivery::Trickle(Duration::from_millis(20)),
        Delivery::LengthOff(1),
        Delivery::Endless(Vec::new(), b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
        Delivery::Endless([drip.clone(), b"21;x=".to_vec()].concat(), b"y".to_vec()),
        Delivery::Endless([drip, b"21\r\n".to_vec(), list, b"\r\n0\r\n".to_vec()].concat(), b"x: y\r\n".to_vec()),
        Delivery::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"x: y\r\n".to_vec()),
        Delivery::Endless(b"HTTP/1.1 200 OK\r\nx: ".to_vec(), b"y".to_vec()),
    ];
    // All at once: each is mostly waiting.
    join_all(deliveries.into_iter().map(never_finishing)).await;
}

async fn never_finishing(delivery: Delivery) {
    let mut world = HostileWorld::baseline(7).await.with_patience(impatient());
    world.make_history();
    for list in [USERS, GROUPS] {
        let began = Instant::now();
        world.fails([on(list).page(2).then(Effect::Deliver(delivery.clone()))], "unreachable").await;
        assert!(began.elapsed() < SOON, "{delivery:?} took {:?}", began.elapsed());
        let tries = world.server.requests_for(list).iter().filter(|request| request.place.page == 2).count();
        assert!(tries <= TRIES, "{delivery:?} was asked {tries} times");
    }
    world = world.with_patience(patient());
    world.calm(HISTORY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g11_a_body_without_an_end_is_cut_off_at_the_limit() {
    let head = |framing: &str| format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{{\"Resources\":[").into_bytes();
    let rows = br#"{"id":"x"},"#.repeat(1_000);
    for delivery in [
        Delivery::EndlessBody,
        Delivery::Endless(head("content-length: 9223372036854775807"), rows.clone()),
        Delivery::Endless(head("content-length: 68719476736"), rows.clone()),
        // Without a length and without chunks a body ends with its connection.
        Delivery::Endless(head("connection: close"), rows),
    ] {
        let mut world = HostileWorld::baseline(7).await;
        world.make_history();
        let began = Instant::now();
        world.fails([on(USERS).page(2).then(Effect::Deliver(delivery.clone()))], "body_too_large").await;
        let sent = world.server.sent();
        assert!(sent < 2 * (BODY_BYTES_MAX as u64 + buffers()), "{delivery:?}: {sent} bytes were taken");
        assert_eq!(world.server.requests().len(), 4, "a list that is too large is asked for once more, row by row");
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        world.calm(HISTORY).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g11_a_gzip_bomb_is_cut_off_at_the_limit() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    let (first, again) = gzip_bomb();
    let head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-type: application/scim+json\r\n\r\n".to_vec();
    let bomb = Delivery::Endless([head, first].concat(), again.clone());
    for list in [USERS, GROUPS] {
        let began = Instant::now();
        world.fails([on(list).page(2).then(Effect::Deliver(bomb.clone()))], "body_too_large").await;
        let megabytes = BODY_BYTES_MAX as u64 >> 20;
        assert!(world.server.sent() < 2 * ((megabytes + 1) * again.len() as u64 + buffers()));
        assert_eq!(
            world.server.requests_for(list).len(),
            4,
            "a list that is too large is asked for once more, row by row"
        );
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    }
    world.calm(HISTORY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_page_is_read_and_one_compressed_twice_is_refused() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    // Announced as compressed but plain, compressed without an announcement, compressed twice.
    let plain = on(USERS).page(2).then(Effect::Header("content-encoding", "gzip".to_owned()));
    world.fails([plain], "unreachable").await;
    let unsaid =
        on(USERS).page(2).then(Effect::Gzip(1)).then(Effect::Header("content-encoding", "identity".to_owned()));
    world.fails([unsaid], "not_a_list_response").await;
    for times in [2, 40] {
        world.fails([on(USERS).page(2).then(Effect::Gzip(times))], "not_a_list_response").await;
    }
    let unknown = on(USERS).page(2).then(Effect::Header("content-encoding", "compress".to_owned()));
    world.publishes([always().then(Effect::Gzip(1))], HISTORY).await;
    world.publishes([unknown], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g11_a_redirect_never_takes_the_token_along() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    let elsewhere = Elsewhere::start().await;
    let itself = world.server.base_url();
    for status in [300, 301, 302, 303, 305, 307, 308] {
        for location in [
            format!("{}/scim/v2/Users", elsewhere.url),
            elsewhere.url.replacen("http://", "//", 1),
            "http://169.254.169.254/latest/meta-data/iam".to_owned(),
            "http://localhost/".to_owned(),
            "file:///etc/passwd".to_owned(),
            format!("{itself}/Users?startIndex=1"),
            "not a URL".to_owned(),
        ] {
            let [redirect, to] = Effect::redirect(status, &location);
            world.fails([on(USERS).page(2).then(redirect).then(to)], "redirected").await;
            assert_eq!(world.server.requests().len(), 2, "{status} to {location} is not followed, nor tried again");
        }
    }
    assert_eq!(elsewhere.connections(), 0);
    world.calm(HISTORY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_rate_limit_fails_the_sync_whatever_retry_after_says() {
    let mut world = HostileWorld::baseline(7).await;
    world.make_history();
    for retry_after in [
        None,
        Some("0"),
        Some("-5"),
        Some("soon"),
        Some(""),
        Some("1.5"),
        Some("315360000"),
        Some("99999999999999999999999999"),
        Some("Fri, 31 Dec 9999 23:59:59 GMT"),
        Some("Thu, 01 Jan 1970 00:00:00 GMT"),
        Some("Mon, 00 Foo 0000 99:99:99 GMT"),
    ] {
        for status in [429, 503] {
            let mut rule = on(USERS).page(2).then(Effect::Status(status));
            rule.effects.extend(retry_after.map(|text| Effect::Header("retry-after", text.to_owned())));
            let began = Instant::now();
            world.fails([rule], "unavailable").await;
            assert!(began.elapsed() < SOON, "waited {:?} for {retry_after:?}", began.elapsed());
            assert_eq!(world.server.requests().len(), 1 + TRIES);
        }
    }
    world.calm(HISTORY).await;
}

/// How long the client waited before it asked again for page 2, given this Retry-After.
async fn waited(retry_after: &str, longest_pause: Duration) -> Duration {
    let mut world = HostileWorld::baseline(7).await.with_patience(Patience { longest_pause, ..patient() });
    let limited = on(USERS).page(2).attempt(1).then(Effect::Status(429));
    world.publishes([limited.then(Effect::Header("retry-after", retry_after.to_owned()))], &[]).await;
    let requests = world.server.requests_for(USERS);
    let tries: Vec<Instant> =
        requests.iter().filter(|request| request.place.page == 2).map(|request| request.at).collect();
    assert_eq!(tries.len(), 2);
    tries[1] - tries[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_for_a_pause_gets_it_up_to_a_limit() {
    let long = Duration::from_secs(20);
    let clamp = Duration::from_millis(400);
    assert!(waited("1", long).await >= Duration::from_secs(1));
    for absurd in ["3600", "315360000", "99999999999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"] {
        let waited = waited(absurd, clamp).await;
        assert!(waited >= clamp && waited < long, "{absurd}: {waited:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_to_come_back_at_is_a_time_of_the_servers_clock() {
    // Far behind ours: by our own clock that time is long past.
    let mut world = HostileWorld::baseline(7).await.with_patience(Patience { longest_pause: SOON, ..patient() });
    let limited = on(USERS)
        .page(2)
        .attempt(1)
        .then(Effect::Status(429))
        .then(Effect::Header("date", "Tue, 01 Jan 2019 00:00:00 GMT".to_owned()))
        .then(Effect::Header("retry-after", "Tue, 01 Jan 2019 00:00:01 GMT".to_owned()));
    let began = Instant::now();
    world.publishes([limited], &[]).await;
    assert!(began.elapsed() >= Duration::from_secs(1));
}
