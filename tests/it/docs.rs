//! Holds the documents against the code: what the code has, they name, and nothing else.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use clap::CommandFactory;
use larder::testing::{
    app::{Explainer, run_tests},
    cli::Cli,
    config::{CliOverrides, Config, Environment},
    field::identity,
    pipeline::explain::{ExplainRequest, ExplainRequestResponse},
    policy::{cache_status::CacheResult, credentials, reason::Reason},
    trigger::webhook::Vendor,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|given| given == extension)).collect()
}

/// The first cells of the table rows of a document, as far as they are code.
fn rows(document: &str) -> BTreeSet<String> {
    let cells = document.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    cells.map(|(name, _)| name.to_owned()).collect()
}

/// The string literals of a source file that begin like a metric's name.
fn metric_names(source: &str) -> BTreeSet<String> {
    let literals = read(source);
    let literals = literals
        .split('"')
        .filter(|text| text.starts_with("larder_") || text.starts_with("process_"));
    literals.map(str::to_owned).collect()
}

#[test]
fn every_metric_is_documented() {
    let mut known = metric_names("src/telemetry/metrics.rs");
    for further in [
        "encoding",
        "feed",
        "leaks",
        "log/stderr",
        "process",
        "purging",
        "requests",
        "store",
        "trigger",
        "user",
        "verification",
    ] {
        known.extend(metric_names(&format!("src/telemetry/{further}.rs")));
    }
    assert!(known.len() > 20, "{known:?}");
    assert_eq!(rows(&read("docs/metrics.md")), known);
}

#[test]
fn every_reason_and_result_is_documented() {
    let reasons = Reason::ALL.iter().map(|reason| reason.as_str().to_owned());
    let results = CacheResult::ALL.iter().map(|result| result.as_str().to_owned());
    let known: BTreeSet<String> = reasons.chain(results).collect();
    assert_eq!(rows(&read("docs/headers.md")), known);
}

#[test]
fn every_reason_is_said_somewhere() {
    let code: String = sources(&root().join("src"))
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    for reason in Reason::ALL {
        assert!(code.contains(&format!("Reason::{reason:?}")), "{reason}");
    }
}

/// The source files that may say a reason: all but tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.ends_with("tests.rs")
        {
            files.push(path);
        }
    }
    files
}

/// The code spans of a section of a document that stand in lines of nothing else.
fn listed_in(document: &str) -> BTreeSet<String> {
    let is_list =
        |line: &&str| line.starts_with('`') && line.ends_with('`') && !line.starts_with("```");
    let lines = document.lines().filter(is_list);
    let spans = lines.flat_map(|line| line.split('`').skip(1).step_by(2));
    spans.map(str::to_owned).collect()
}

#[test]
fn every_name_that_counts_as_a_credential_is_documented() {
    let words = [
        &identity::CREDENTIAL_WORDS,
        &identity::TENANT_WORDS,
        &credentials::CREDENTIAL_PARAMETERS,
        &credentials::SIGNATURE_PARAMETERS,
    ];
    let patterns = [
        &identity::NAMES,
        &identity::HARMLESS,
        &credentials::SESSION_COOKIES,
        &credentials::SELECTING_COOKIES,
        &credentials::HARMLESS_COOKIES,
    ];
    let parts: [&[&str]; 4] = [
        &identity::ENDINGS,
        &credentials::SESSION_PARTS,
        &credentials::SESSION_ENDS,
        &credentials::FORGERY_PARTS,
    ];
    let document = read("docs/credentials.md");
    // The paragraphs of names, in the order of the document.
    let known: Vec<BTreeSet<String>> = words
        .map(|list| list.iter().collect::<Vec<_>>())
        .into_iter()
        .chain(patterns.map(|list| list.iter().collect()))
        .chain(parts.map(<[&str]>::to_vec))
        .map(|names| names.into_iter().map(str::to_owned).collect())
        .collect();
    let paragraphs: Vec<BTreeSet<String>> =
        document.split("\n\n").map(listed_in).filter(|names| !names.is_empty()).collect();
    for names in &known {
        assert!(paragraphs.contains(names), "docs/credentials.md has no list of {names:?}");
    }
    assert_eq!(paragraphs.len(), known.len());
}

#[test]
fn every_command_is_in_the_readme() {
    let readme = read("README.md");
    for command in Cli::command().get_subcommands() {
        let call = format!("larder {}", command.get_name());
        assert!(readme.contains(&call), "README.md does not tell of `{call}`");
    }
}

#[test]
fn every_example_is_a_valid_configuration() {
    let examples = files("examples", "toml");
    assert!(!examples.is_empty());
    for example in examples {
        match Config::load(&example, &CliOverrides::default()) {
            Ok(config) => assert!(config.warnings.problems.is_empty(), "{}", config.warnings),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn the_configuration_in_the_readme_is_valid() {
    let readme = read("README.md");
    let blocks = blocks(&readme, "toml");
    let environment = Environment {
        variable: &|_| Some("secret".to_owned()),
        file: &|_| Err(std::io::ErrorKind::NotFound.into()),
    };
    // The second block is appended to the first.
    assert_eq!(blocks.len(), 2);
    for text in [blocks[0].to_owned(), blocks.concat()] {
        let config = Config::parse(&text, "README.md", environment).unwrap();
        assert!(config.warnings.problems.is_empty(), "{}", config.warnings);
    }
}

#[test]
fn the_webhooks_in_the_documents_are_valid() {
    let text = read("docs/purging.md");
    // Secrets in base64, for the scheme that has them, and long enough for tokens.
    let environment = Environment {
        variable: &|_| Some("c2VjcmV0".repeat(4)),
        file: &|_| Err(std::io::ErrorKind::NotFound.into()),
    };
    let blocks: Vec<&str> = text
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```").map(|(block, _)| block))
        .collect();
    for block in &blocks {
        let file = format!("origin = \"http://origin\"\n{block}");
        let config = Config::parse(&file, "purging.md", environment).unwrap();
        assert!(config.warnings.problems.is_empty(), "{}", config.warnings);
        assert_eq!(config.webhooks.len(), block.matches("[[webhook]]").count(), "{block}");
    }
    for vendor in Vendor::ALL {
        let scheme = format!("scheme = \"{}\"", vendor.as_str());
        assert!(blocks.iter().any(|block| block.contains(&scheme)), "no recipe has {scheme}");
        assert!(rows(&text).contains(vendor.as_str()), "no table tells of {}", vendor.as_str());
    }
}

#[test]
fn the_events_in_the_documents_are_valid() {
    let text = read("docs/events.md");
    let block = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let file = format!("origin = \"http://origin\"\n{block}");
    let config = Config::parse(&file, "events.md", Environment::empty()).unwrap();
    assert!(config.warnings.problems.is_empty(), "{}", config.warnings);
    assert!(config.events.is_some());
}

/// The blocks of a document in this language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let start = format!("```{language}\n");
    let blocks = text.split(start.as_str()).skip(1);
    blocks.filter_map(|rest| rest.split_once("```").map(|(block, _)| block)).collect()
}

#[test]
fn the_explanation_in_the_documents_is_what_is_explained() {
    let text = read("docs/explain.md");
    let (files, shown) = (blocks(&text, "toml"), blocks(&text, "text"));
    let config = Config::parse(files[0], "explain.md", Environment::empty()).unwrap();
    let asked = ExplainRequest {
        headers: vec!["cookie: _ga=1".to_owned()],
        response: Some(ExplainRequestResponse { status: 200, headers: Vec::new(), body: None }),
        ..ExplainRequest::get("https://api.example.com/items/1?utm_source=mail")
    };
    let explained = Explainer::new(&config).unwrap().explain(&asked).unwrap();
    let id = explained.key.as_ref().unwrap().id.clone();
    assert_eq!(shown[0], explained.to_string().replace(&id, "ID"));
    let tested = Config::parse(files[1], "explain.md", Environment::empty()).unwrap();
    assert!(tested.warnings.problems.is_empty(), "{}", tested.warnings);
    assert_eq!(run_tests(&tested).unwrap(), []);
    let broken = files[1].replacen("ttl = \"5m\"", "ttl = \"1m\"", 1);
    let broken = Config::parse(&broken, "explain.md", Environment::empty()).unwrap();
    let failure = run_tests(&broken).unwrap().pop().unwrap();
    assert!(shown[1].contains(&failure.message) && shown[1].contains(&failure.because));
}

#[test]
fn the_configurations_in_the_guides_are_valid() {
    let environment = Environment {
        variable: &|_| Some("secret".to_owned()),
        file: &|path| {
            let is_json = path.extension().is_some_and(|extension| extension == "json");
            Ok(if is_json { "{}" } else { "secret" }.to_owned())
        },
    };
    for file in [
        "get-started.md",
        "cache-an-api.md",
        "encoding.md",
        "search-bodies.md",
        "graphql.md",
        "operations.md",
        "origins.md",
        "shadow.md",
    ] {
        let text = read(&format!("docs/{file}"));
        let examples = blocks(&text, "toml");
        assert!(!examples.is_empty(), "{file}");
        for example in examples {
            // Examples without a section show keys of a route.
            let has_sections = example.lines().any(|line| line.starts_with('['));
            let route = "[[route]]\nname = \"example\"\nmatch = \"/example/**\"\n";
            let section = if has_sections { "" } else { route };
            let has_origin = example.contains("origin = ") || example.contains("[origin]");
            let origin = if has_origin { "" } else { "origin = \"http://origin\"\n" };
            let config =
                Config::parse(&format!("{origin}{section}{example}"), file, environment).unwrap();
            assert!(config.warnings.problems.is_empty(), "{}", config.warnings);
        }
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in files("", "md").into_iter().chain(files("docs", "md")) {
        let text = std::fs::read_to_string(&document).unwrap();
        for (_, link) in
            text.split("](").skip(1).filter_map(|rest| Some(("", rest.split_once(')')?.0)))
        {
            let target = link.split('#').next().unwrap_or_default();
            let is_elsewhere = target.is_empty() || target.contains("://");
            let found = is_elsewhere || document.parent().unwrap().join(target).exists();
            assert!(found, "{}: {link}", document.display());
        }
    }
}

/// The names of tests in the second cells of the rows of `tests/behaviours.md`.
fn tests_of_behaviours() -> BTreeSet<String> {
    let document = read("tests/behaviours.md");
    let rows = document.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    let cells = rows.map(|row| row.split(" | ").nth(1).expect(row));
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names.map(|name| name.rsplit("::").next().unwrap().to_owned()).collect()
}

/// The text of every file under a folder, as far as it is text.
fn all_text(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &all_text(&path);
        } else if !path.ends_with("behaviours.md") {
            text += &std::fs::read_to_string(&path).unwrap_or_default();
        }
    }
    text
}

#[test]
fn every_test_of_a_behaviour_exists() {
    let code = all_text(&root().join("src")) + &all_text(&root().join("tests"));
    for name in tests_of_behaviours() {
        let forms = [format!("fn {name}("), format!("'{name}'"), format!("\"{name}\"")];
        let is_there = forms.iter().any(|form| code.contains(form));
        assert!(is_there, "tests/behaviours.md names `{name}`, which is no test");
    }
}

#[test]
fn prose_is_wrapped_at_100_columns() {
    for document in files("", "md").into_iter().chain(files("docs", "md")) {
        let text = std::fs::read_to_string(&document).unwrap();
        let mut is_code = false;
        for (number, line) in text.lines().enumerate() {
            is_code ^= line.trim_start().starts_with("```");
            let is_prose = !is_code && !line.starts_with('|') && !line.contains("```");
            let place = format!("{}:{}", document.display(), number + 1);
            assert!(!is_prose || line.chars().count() <= 100, "{place}: over 100 columns");
        }
    }
}
