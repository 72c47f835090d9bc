//! The search over the consoles of many builds, as a page.

use anyhow::{Context, Result};
use axum::http::StatusCode;

use super::pages::Browser;
use super::scene::Scene;

/// A job of three builds, each of which has printed.
async fn printed() -> Result<Scene> {
    let scene = Scene::new();
    for number in 1..=3 {
        scene.build("j").await?;
        let claim = scene.task().await?;
        let text = format!("x\n<b>build</b> {number}\n").repeat(150);
        scene.append(&claim, 0, text.as_bytes()).await?;
        scene.finish(&claim).await?;
    }
    Ok(scene)
}

#[tokio::test(start_paused = true)]
async fn consoles_are_searched_without_scripts() -> Result<()> {
    let scene = printed().await?;
    let browser = Browser::signed_in(&scene).await?;
    let form = browser.page("/search?job=j").await?;
    assert!(form.contains("value=\"j\"") && !form.contains("Nothing"));
    assert!(
        browser
            .page("/jobs/j")
            .await?
            .contains("href=\"/search?job=j\"")
    );

    // What a form sends of fields that were left empty.
    let asked = "/search?q=%3Cb%3Ebuild&job=&task=&since=7d&regex=true";
    let (mut address, mut places) = (asked.to_owned(), Vec::new());
    loop {
        let page = browser.page(&address).await?;
        assert!(!page.contains("<b>build"), "{page}");
        assert!(page.contains("<mark>&#60;b&#62;build</mark>"), "{page}");
        let links = page.split("href=\"").skip(1);
        let links = links.filter_map(|rest| rest.split('"').next());
        let links: Vec<_> = links.map(|link| link.replace("&#38;", "&")).collect();
        places.extend(links.iter().filter(|link| link.contains("#L")).cloned());
        let next = page.split("rel=\"next\" href=\"").nth(1);
        let Some(next) = next.and_then(|rest| rest.split('"').next()) else {
            break;
        };
        address = next.replace("&#38;", "&");
    }
    assert_eq!(places.len(), 450);
    assert_eq!(
        places[0],
        "/jobs/j/builds/3/console?task=a&attempt=1&line=1#L2"
    );
    let last = places.last().context("nothing was found")?;
    assert_eq!(
        last,
        "/jobs/j/builds/1/console?task=a&attempt=1&line=295#L300"
    );
    let path = last.split('#').next().unwrap_or_default();
    assert!(browser.page(path).await?.contains("id=\"L300\""));

    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_search_that_finds_nothing_or_is_none_says_so() -> Result<()> {
    let scene = printed().await?;
    let browser = Browser::signed_in(&scene).await?;
    for nowhere in ["q=none", "q=x&failed=true", "q=x&task=b", "q=x&job=other"] {
        let page = browser.page(&format!("/search?{nowhere}")).await?;
        assert!(page.contains("Nothing was found."), "{nowhere}");
    }
    for wrong in [
        "q=(&regex=true",
        "q=a&job=[",
        "q=a&since=soon",
        "q=a&task=%20a%2F",
        "q=a&cursor=x",
    ] {
        let answer = browser.get(&format!("/search?{wrong}")).await?;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
        let page = String::from_utf8(answer.body.to_vec())?;
        assert!(
            page.contains("role=\"alert\"") && page.contains("name=\"q\""),
            "{wrong}"
        );
    }
    Ok(())
}
