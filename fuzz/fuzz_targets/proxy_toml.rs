//! Any text is a configuration that can be shown and used, or an explanation; never a panic.
#![no_main]

use http::Method;
use larder::testing::{
    cli::check,
    config::{Config, Environment},
    key::uri::PathReadings,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Config::parse(text, "proxy.toml", Environment::empty()) {
        Ok(config) => {
            assert!(!config.warnings.has_errors());
            assert!(check::summary(&config).contains("valid"));
            for path in ["/", "/a", "/a/b/c", "/A//b%2Fc;d/", "*"] {
                let path = PathReadings::of(path);
                let route = config.routes.select(&Method::GET, "example.com", &path).route;
                let _ = route.tags_of(&path, Some("a=1&b=2&a=3"), Some("zoe"));
            }
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(!error.styled().is_empty());
        }
    }
});
