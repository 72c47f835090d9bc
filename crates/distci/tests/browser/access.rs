//! Whether everybody can use the pages: contrast, names for who hears a page, and the keyboard alone.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::browser::{Browser, Theme};
use crate::pages::{PAGES, lively};

/// What must have a name of its own, as the browser tells programs that read it aloud.
const NAMED: [&str; 9] = [
    "button",
    "checkbox",
    "combobox",
    "heading",
    "image",
    "link",
    "searchbox",
    "textbox",
    "table",
];

#[tokio::test]
async fn every_page_can_be_read_by_everybody() -> Result<()> {
    let site = lively()?;
    let browser = site.browse().await?;
    let mut wrongs = Vec::new();
    for theme in Theme::ALL {
        browser.prefer(theme).await?;
        for (name, path) in PAGES {
            browser.visit(&site.at(path)).await?;
            browser.find("main h1").await?;
            let found = browser
                .window
                .execute(include_str!("access.js"), Vec::new());
            let mut found: Vec<String> = found.await?.convert()?;
            if theme == Theme::Light {
                found.extend(nameless(&browser).await?);
            }
            let about = |wrong| format!("{name}, {}: {wrong}", theme.as_str());
            wrongs.extend(found.into_iter().map(about));
        }
    }
    ensure!(wrongs.is_empty(), "{wrongs:#?}");
    browser.close().await
}

/// What can be used or seen, and is not called anything.
async fn nameless(browser: &Browser) -> Result<Vec<String>> {
    let tools = browser.window.cdp();
    let tree = tools
        .send_raw("Accessibility.getFullAXTree", json!({}))
        .await?;
    let nodes = tree["nodes"].as_array().context("no tree")?;
    let lacks = |node: &&Value| {
        let role = node["role"]["value"].as_str().unwrap_or_default();
        let name = node["name"]["value"].as_str().unwrap_or_default();
        node["ignored"] == false && NAMED.contains(&role) && name.trim().is_empty()
    };
    let lacking = nodes.iter().filter(lacks);
    Ok(lacking
        .map(|node| format!("a {} without a name", node["role"]["value"]))
        .collect())
}

/// Marks everything that the keyboard must reach, and says how much it is. Of radio buttons that belong
/// together the keyboard reaches the one that is chosen; arrows lead to the others.
const MARK: &str = "const all = [...document.querySelectorAll('a[href], button, input:not([type=hidden]), select, textarea, \
    summary, [tabindex=\"0\"]')].filter(e => !(e.type === 'radio' && !e.checked) && e.checkVisibility({ visibilityProperty: true }) && !e.disabled); \
    all.forEach((e, at) => e.dataset.reach = at); document.activeElement.blur(); return all.length";

/// What has the focus now, and how that is shown.
const FOCUSED: &str = "const e = document.activeElement; if (!e || e === document.body) return null; \
    const style = getComputedStyle(e); const box = e.getBoundingClientRect(); \
    return [Number(e.dataset.reach ?? -1), style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2 \
    && box.bottom > 0 && box.top < innerHeight, e.outerHTML.slice(0, 100)]";

#[tokio::test]
async fn every_page_can_be_used_by_the_keyboard_alone() -> Result<()> {
    let site = lively()?;
    let browser = site.browse().await?;
    for (name, path) in PAGES {
        browser.visit(&site.at(path)).await?;
        browser.find("main h1").await?;
        let count: usize = browser.window.execute(MARK, Vec::new()).await?.convert()?;
        let mut reached = BTreeSet::new();
        for _ in 0..count * 2 {
            press_tab(&browser).await?;
            let focused = browser.window.execute(FOCUSED, Vec::new()).await?;
            let Some((at, is_shown, which)) = focused.convert::<Option<(i64, bool, String)>>()?
            else {
                break;
            };
            ensure!(
                is_shown,
                "{name}: nothing shows that this has the focus: {which}"
            );
            reached.insert(at);
        }
        let missing = format!(
            "return [...document.querySelectorAll('[data-reach]')].filter(e => !{:?}.includes(Number(e.dataset.reach))) \
            .map(e => e.outerHTML.slice(0, 100))",
            Vec::from_iter(&reached)
        );
        let missing: Vec<String> = browser
            .window
            .execute(&missing, Vec::new())
            .await?
            .convert()?;
        ensure!(
            missing.is_empty(),
            "{name}: the keyboard does not reach {missing:#?}"
        );
    }
    browser.close().await
}

async fn press_tab(browser: &Browser) -> Result<()> {
    let tools = browser.window.cdp();
    for kind in ["rawKeyDown", "keyUp"] {
        let key = json!({ "type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9 });
        tools.send_raw("Input.dispatchKeyEvent", key).await?;
    }
    Ok(())
}
