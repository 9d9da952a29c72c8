//! The HTTP listener: whether `run` could listen at its address, and whether requests could be answered.

use super::report::Report;
use crate::cli::failure::Exit;
use crate::config::HttpConfig;
use crate::http;
use crate::transport::file::NamedFile;

pub(super) async fn check(HttpConfig { listen, token }: &HttpConfig, report: &mut Report) {
    match http::try_address(*listen).await {
        Ok(true) => report.ok("listen", "the address is free"),
        Ok(false) => report.ok("listen", "a running scimtail has the address"),
        Err(problem) => report.fail("listen", &problem, Exit::Configuration),
    }
    let Some(token) = token else { return };
    match token.read() {
        Ok(_) => report.ok("token", "can be read"),
        Err(reason) => report.fail("token", &http::no_token(&reason), Exit::Configuration),
    }
    if let Some(exposure) = token.named_file().and_then(NamedFile::exposure) {
        report.note("files", &exposure);
    }
}
