//! Each way in which a bucket can be wrong, and the words for it.

use super::liar::Liar;
use super::{BOUND, Duration, Instant, S3Access, S3Settings, S3Trouble, Scratch, shared};
use crate::blobs::{BlobError, BlobKey, Blobs};

async fn check(settings: &S3Settings) -> Result<(), S3Trouble> {
    Blobs::s3(settings)?.check().await
}

/// What the check says about the settings that `change` has spoilt.
async fn said(change: impl FnOnce(&mut S3Settings)) -> String {
    let mut settings = Scratch::shared().settings;
    change(&mut settings);
    check(&settings).await.unwrap_err().to_string()
}

/// What the check says about something else that listens.
async fn said_of(liar: &Liar) -> String {
    let said = said(|settings| settings.endpoints = vec![liar.endpoint()]).await;
    assert!(said.contains(&liar.endpoint()), "{said}");
    said
}

fn access() -> S3Access {
    shared::ceph().unwrap()
}

/// An address where nobody listens.
fn nobody() -> String {
    let port = distci_components::take_ports(None, 1).unwrap()[0];
    format!("http://127.0.0.1:{port}")
}

#[tokio::test]
async fn a_good_bucket_passes_and_keeps_nothing() {
    let scratch = Scratch::shared();
    let blobs = scratch.blobs();
    blobs.check().await.unwrap();
    let left = blobs.list(&BlobKey::parse("check").unwrap()).await;
    assert!(left.unwrap().is_empty());
    Blobs::memory().check().await.unwrap();
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_to_be_created() {
    let said = said(|settings| "no-such-bucket".clone_into(&mut settings.bucket)).await;
    assert!(
        said.contains("there is no bucket \"no-such-bucket\""),
        "{said}"
    );
    assert!(said.contains("s3 mb s3://no-such-bucket"), "{said}");
}

#[tokio::test]
async fn an_access_key_that_is_unknown_is_named() {
    let said = said(|settings| "nobody".clone_into(&mut settings.access_key)).await;
    assert!(
        said.contains("does not know the access key \"nobody\""),
        "{said}"
    );
}

#[tokio::test]
async fn a_wrong_secret_is_told_from_a_wrong_key_and_not_shown() {
    let said = said(|settings| "hush-hush".clone_into(&mut settings.secret_key)).await;
    assert!(said.contains("secret key is not the one"), "{said}");
    assert!(!said.contains("hush-hush"), "{said}");
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_named() {
    let nobody = nobody();
    let said = said(|settings| settings.endpoints = vec![nobody.clone()]).await;
    assert!(said.contains(&nobody), "{said}");
    assert!(said.contains("refused"), "{said}");
}

#[tokio::test]
async fn a_gateway_that_is_down_does_not_matter_beside_another() {
    let mut settings = Scratch::shared().settings;
    let sick = Liar::answering("503 Service Unavailable", "", "draining").await;
    settings.endpoints = vec![nobody(), sick.endpoint(), access().endpoints.remove(0)];
    check(&settings).await.unwrap();
}

#[tokio::test]
async fn a_gateway_that_hangs_is_found_out() {
    let liar = Liar::saying(None).await;
    let begun = Instant::now();
    let said = said_of(&liar).await;
    assert!(said.contains("no answer within"), "{said}");
    assert!(begun.elapsed() < BOUND);
}

#[tokio::test]
async fn a_page_of_another_server_is_no_s3() {
    let page = "<html>It works!</html>";
    for headers in [
        "",
        "ETag: \"x\"\r\n",
        "ETag: \"x\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
    ] {
        let liar = Liar::answering("200 OK", headers, page).await;
        let said = said_of(&liar).await;
        assert!(said.contains("answers, but not as S3"), "{said}");
    }
    let liar = Liar::answering("404 Not Found", "", page).await;
    let said = said_of(&liar).await;
    assert!(
        said.contains("not as S3: 404 Not Found <html>It works!"),
        "{said}"
    );
}

#[tokio::test]
async fn what_speaks_no_http_is_no_s3() {
    let liar = Liar::saying(Some("SSH-2.0-OpenSSH_9.2\r\n".to_owned())).await;
    let said = said_of(&liar).await;
    assert!(said.contains("answers, but not as S3"), "{said}");
}

#[tokio::test]
async fn clocks_that_differ_are_told_apart() {
    let body = "<Error><Code>RequestTimeTooSkewed</Code></Error>";
    let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let liar = Liar::answering("403 Forbidden", date, body).await;
    let said = said_of(&liar).await;
    assert!(said.contains("the clock of this machine is"), "{said}");
    assert!(said.contains("s ahead of that of"), "{said}");
    let liar = Liar::answering("403 Forbidden", "", body).await;
    let said = said_of(&liar).await;
    assert!(said.contains("differ too much"), "{said}");
}

#[tokio::test]
async fn what_is_denied_is_named() {
    let body = "<Error><Code>AccessDenied</Code></Error>";
    let liar = Liar::answering("403 Forbidden", "", body).await;
    let said = said_of(&liar).await;
    assert!(said.contains("may not write in bucket"), "{said}");
}

#[tokio::test]
async fn a_store_that_is_full_is_full_and_not_down() {
    for (status, body) in [
        ("403 Forbidden", "<Error><Code>QuotaExceeded</Code></Error>"),
        ("507 Insufficient Storage", ""),
    ] {
        let liar = Liar::answering(status, "", body).await;
        assert!(said_of(&liar).await.contains("is full"));
        let mut settings = Scratch::shared().settings;
        settings.endpoints = vec![liar.endpoint()];
        let put = Blobs::s3(&settings).unwrap();
        let put = put.put(&super::key("a"), super::noise(5)).await;
        assert!(matches!(put, Err(BlobError::Full)), "{put:?}");
    }
}

#[tokio::test]
async fn a_sick_gateway_is_called_so() {
    let liar = Liar::answering("503 Service Unavailable", "", "draining").await;
    let said = said_of(&liar).await;
    assert!(
        said.contains("trouble of its own: 503 Service Unavailable draining"),
        "{said}"
    );
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for endpoints in [
        vec![],
        vec!["ceph:7480"],
        vec!["ftp://ceph"],
        vec!["http://a@ceph"],
    ] {
        let mut settings = Scratch::shared().settings;
        settings.endpoints = endpoints.into_iter().map(str::to_owned).collect();
        assert!(matches!(
            Blobs::s3(&settings),
            Err(S3Trouble::Settings { .. })
        ));
    }
    let mut settings = Scratch::shared().settings;
    settings.prefix = Some("a/../b".to_owned());
    assert!(matches!(
        Blobs::s3(&settings),
        Err(S3Trouble::Settings { .. })
    ));
}

#[tokio::test]
async fn the_first_gateway_that_hangs_is_left_for_the_second() {
    let liar = Liar::saying(None).await;
    let mut settings = Scratch::shared().settings;
    settings.endpoints = vec![liar.endpoint(), access().endpoints.remove(0)];
    let blobs = Blobs::s3(&settings).unwrap();
    let begun = Instant::now();
    for _ in 0..5 {
        blobs.put(&super::key("a"), super::noise(5)).await.unwrap();
    }
    // The hanging one is asked once only.
    assert!(begun.elapsed() < Duration::from_secs(30));
}
