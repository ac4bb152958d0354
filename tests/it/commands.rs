//! Commands that call an admin listener: they call the node that the operator named, and no other.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    path::Path,
    process::Command,
};

use tempfile::TempDir;

use crate::support::{
    proxy::Proxy,
    script::{OriginResponse, ScriptedOrigin},
    wire::RawOrigin,
    within,
};

const RECEIPT: &str = r#"{"seq":1,"nodes":{"applied":1,"total":1}}"#;

/// The exit code of `larder` with these arguments in this directory, and all that it says.
async fn larder(directory: &Path, line: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    for name in ["LARDER_CONFIG", "LARDER_ADMIN", "LARDER_ADMIN_TOKEN", "LARDER_ORIGIN"] {
        command.env_remove(name);
    }
    command.args(line).current_dir(directory).envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(printed).unwrap())
}

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

const PURGE: [&str; 2] = ["purge", "--everything"];
const HEALTH: [&str; 1] = ["health"];

#[tokio::test]
async fn commands_call_no_node_where_the_file_names_none() {
    within(async {
        let files = [
            ("broken.toml", "origin = \"http://o\"\nno_such_key = 1\n"),
            ("unset.toml", "origin = \"http://o\"\nadmin.listen = \"${LARDER_NOT_SET}\"\n"),
            ("off.toml", "origin = \"http://o\"\nadmin.listen = \"off\"\n"),
            ("chosen.toml", "origin = \"http://o\"\nadmin.listen = \"127.0.0.1:0\"\n"),
        ];
        let directory = directory(&files);
        let names = files.map(|(name, _)| name);
        for command in [&PURGE[..], &HEALTH] {
            for name in ["missing.toml"].iter().chain(&names) {
                let by_flag = [command, &["--config", name]].concat();
                let by_variable = [("LARDER_CONFIG", *name), ("LARDER_ADMIN_TOKEN", "secret")];
                for (code, printed) in [
                    larder(directory.path(), &by_flag, &[]).await,
                    larder(directory.path(), command, &by_variable).await,
                ] {
                    assert_eq!(code, 1, "{name}: {printed}");
                    assert!(printed.contains("no node was called"), "{printed}");
                    assert!(printed.contains(name) && printed.contains("--admin"), "{printed}");
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_broken_file_in_the_directory_names_no_node() {
    within(async {
        let directory = directory(&[("proxy.toml", "origin = \"http://o\"\nno_such_key = 1\n")]);
        for command in [&PURGE[..], &HEALTH] {
            let (code, printed) = larder(directory.path(), command, &[]).await;
            assert_eq!(code, 1, "{printed}");
            assert!(
                printed.contains("no node was called") && printed.contains("no_such_key"),
                "{printed}"
            );
        }
        let by_both = [&PURGE[..], &["--config", "proxy.toml"]].concat();
        let (code, printed) = larder(directory.path(), &by_both, &[("LARDER_ADMIN", ":1")]).await;
        assert_eq!(code, 1);
        assert!(printed.contains("may name different nodes"), "{printed}");
        let without_token = [&PURGE[..], &["--admin", "127.0.0.1:1"]].concat();
        let (code, printed) = larder(directory.path(), &without_token, &[]).await;
        assert_eq!(code, 1);
        assert!(
            printed.contains("LARDER_ADMIN_TOKEN") && printed.contains("no_such_key"),
            "{printed}"
        );
    })
    .await;
}

#[tokio::test]
async fn commands_call_the_node_that_flags_variables_or_the_file_name() {
    within(Box::pin(async {
        let origin = ScriptedOrigin::start(|_| OriginResponse::ok("a")).await;
        let proxy = Proxy::with(&origin.url(), "admin.token = \"secret\"");
        let admin = proxy.admin_address().to_string();
        let text = format!(
            "origin = \"http://o\"\nadmin = {{ listen = \"{admin}\", token = \"secret\" }}\n"
        );
        let here = directory(&[("proxy.toml", &text), ("other.toml", &text)]);
        let broken = directory(&[("proxy.toml", "no_such_key = 1")]);
        let other = here.path().join("other.toml");
        let other = other.to_str().unwrap();
        let by_flag = [&PURGE[..], &["--config", other]].concat();
        let by_flags = [&PURGE[..], &["--admin", &admin, "--token", "secret"]].concat();
        let variables = [("LARDER_ADMIN", &*admin), ("LARDER_ADMIN_TOKEN", "secret")];
        let calls = [
            (here.path(), &PURGE[..], &[][..]),
            (broken.path(), &by_flag, &[]),
            (broken.path(), &PURGE, &[("LARDER_CONFIG", other)]),
            (broken.path(), &by_flags, &[]),
            (broken.path(), &PURGE, &variables),
        ];
        for (number, (directory, line, variables)) in calls.into_iter().enumerate() {
            let receipt = RECEIPT.replace("1,\"n", &format!("{},\"n", number + 1)) + "\n";
            assert_eq!(larder(directory, line, variables).await, (0, receipt), "{line:?}");
        }
        for variable in [("LARDER_ADMIN", &*admin), ("LARDER_CONFIG", other)] {
            let ready = (0, "ready\n".to_owned());
            assert_eq!(larder(broken.path(), &HEALTH, &[variable]).await, ready);
        }
    }))
    .await;
}

#[tokio::test]
async fn a_response_of_another_server_is_an_error() {
    within(async {
        let server = RawOrigin::start(|mut wire, _| async move {
            let head = wire.read_head().await;
            wire.try_read_body(&head).await;
            wire.write("HTTP/1.1 200 OK\r\n\r\n<html>welcome</html>").await;
        })
        .await;
        let address = server.address.to_string();
        let nowhere = directory(&[]);
        let variables = [("LARDER_ADMIN", &*address), ("LARDER_ADMIN_TOKEN", "secret")];
        for command in [&PURGE[..], &HEALTH] {
            let (code, printed) = larder(nowhere.path(), command, &variables).await;
            assert_eq!(code, 1, "{printed}");
            assert!(printed.contains("is this Larder's admin listener?"), "{printed}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_unix_socket_that_the_file_names_is_called() {
    within(async {
        let directory = directory(&[]);
        let socket = directory.path().join("admin.sock");
        let text = format!(
            "origin = \"http://o\"\nadmin = {{ listen = \"unix:{}\", token = \"secret\" }}\n",
            socket.display()
        );
        std::fs::write(directory.path().join("node.toml"), text).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut call = Vec::new();
            while !call.ends_with(b"}") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                call.extend(byte);
            }
            stream.write_all(format!("HTTP/1.1 200 OK\r\n\r\n{RECEIPT}").as_bytes()).unwrap();
            String::from_utf8(call).unwrap()
        });
        let line = [&PURGE[..], &["--config", "node.toml"]].concat();
        let expected = (0, format!("{RECEIPT}\n"));
        assert_eq!(larder(directory.path(), &line, &[]).await, expected);
        assert!(server.join().unwrap().contains("Bearer secret"));
    })
    .await;
}

#[tokio::test]
async fn a_purge_of_a_route_that_the_file_does_not_have_suggests_another() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("a")).await;
        let proxy = Proxy::with(&origin.url(), "admin.token = \"secret\"");
        let admin = proxy.admin_address();
        let text = format!(
            "origin = \"http://o\"\nadmin = {{ listen = \"{admin}\", token = \"secret\" }}\n[[route]]\nname = \"tiles\"\nmatch = \"/tiles\"\n"
        );
        let here = directory(&[("proxy.toml", &text)]);
        let (code, printed) = larder(here.path(), &["purge", "--route", "tilez"], &[]).await;
        assert_eq!(code, 0, "{printed}");
        let warning = "warning: proxy.toml has no route `tilez`; did you mean `tiles`?";
        assert!(printed.contains(warning) && printed.contains("\"seq\":1"), "{printed}");
        let (_, printed) = larder(here.path(), &["purge", "--route", "tiles"], &[]).await;
        assert!(!printed.contains("warning"), "{printed}");
    })
    .await;
}

#[tokio::test]
async fn a_purge_of_a_user_whom_the_file_cannot_know_is_a_warning() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("a")).await;
        let proxy = Proxy::with(&origin.url(), "admin.token = \"secret\"");
        let admin = proxy.admin_address();
        let jwt = "jwt = { secret = \"0123456789abcdef0123456789abcdef\", iss = \"https://i\" }";
        let gateway = "header = { name = \"x-user-id\", from = \"10.0.0.1\" }";
        let line = ["purge", "--user", "42"];
        let other = [&line[..], &["--iss", "https://j"]].concat();
        let own = [&line[..], &["--iss", "https://i"]].concat();
        for (user, line, warning) in [
            ("", &line[..], Some("neither `user.jwt` nor `user.header`")),
            (jwt, &line, None),
            (jwt, &own, None),
            (jwt, &other, Some("`user.jwt.iss` in proxy.toml does not name `https://j`")),
            (gateway, &line, None),
            (gateway, &own, Some("leave out `--iss`")),
        ] {
            let text = format!(
                "origin = \"http://o\"\nadmin = {{ listen = \"{admin}\", token = \"secret\" }}\n[user]\n{user}\n"
            );
            let here = directory(&[("proxy.toml", &text)]);
            let (code, printed) = larder(here.path(), line, &[]).await;
            assert!(code == 0 && printed.contains("\"seq\""), "{printed}");
            assert_eq!(printed.contains("warning"), warning.is_some(), "{line:?}: {printed}");
            assert!(printed.contains(warning.unwrap_or_default()), "{printed}");
        }
    })
    .await;
}

#[tokio::test]
async fn explain_asks_the_file_or_the_node() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let proxy = Proxy::with(&origin.url(), "admin.token = \"secret\"");
        proxy.get("/a").await;
        let admin = proxy.admin_address();
        let text = format!(
            "origin = \"http://o\"\nadmin = {{ listen = \"{admin}\", tokens = [{{ token = \"secret\", may = [\"read\"] }}] }}\n"
        );
        let here = directory(&[("proxy.toml", &text)]);
        let line = ["explain", "GET", "http://api.test/a", "-H", "cookie: _ga=1"];
        let (code, printed) = larder(here.path(), &line, &[]).await;
        assert_eq!(code, 0, "{printed}");
        assert!(printed.contains("MISS, detail=cold"), "{printed}");
        let (code, printed) = larder(here.path(), &[&line[..], &["--live"]].concat(), &[]).await;
        assert_eq!(code, 0, "{printed}");
        assert!(printed.contains("X-API-Cache  HIT"), "{printed}");
        let (_, printed) = larder(here.path(), &[&line[..], &["--live", "--json"]].concat(), &[]).await;
        let document: serde_json::Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(document["answer"]["result"], "HIT", "{printed}");
        let wrong = [&line[..], &["--live", "--token", "wrong"]].concat();
        let (code, printed) = larder(here.path(), &wrong, &[]).await;
        assert_eq!(code, 1);
        assert!(printed.contains("LARDER_ADMIN_TOKEN"), "{printed}");
    })
    .await;
}

#[tokio::test]
async fn an_explanation_says_why_no_user_is_known() {
    within(async {
        let file = |user: &str| {
            format!(
                "origin = \"http://o\"\n{user}\n[[route]]\nname = \"a\"\nmatch = \"/**\"\npartition = \"user\"\nttl = \"1m\"\n"
            )
        };
        let gateway = file("[user]\nheader = { name = \"x-user-id\", from = \"10.0.0.1\" }");
        let directory = directory(&[("gateway.toml", &gateway), ("exact.toml", &file(""))]);
        for (name, header, expected) in [
            ("gateway.toml", "x-user-id: 7", "only a gateway in `user.header.from` may set this"),
            ("gateway.toml", "x-user-id: 7", "pass `--from`"),
            ("exact.toml", "cookie: lang=de", "unknown: nothing above identifies the user with certainty"),
            ("exact.toml", "cookie: lang=de", "send a session cookie or a key"),
        ] {
            let line = ["explain", "GET", "/a", "--config", name, "-H", header];
            let (code, printed) = larder(directory.path(), &line, &[]).await;
            assert!(code == 0 && printed.contains(expected), "{expected}: {printed}");
        }
        let line = ["explain", "GET", "/a", "--config", "exact.toml", "-H", "cookie: sessionid=1"];
        let (_, printed) = larder(directory.path(), &line, &[]).await;
        assert!(printed.contains("these exact credentials") && !printed.contains("--user"), "{printed}");
    })
    .await;
}

#[test]
fn a_reader_that_goes_is_no_error() {
    let directory = directory(&[("proxy.toml", "origin = \"http://o\"\n")]);
    for line in [&["check"][..], &["explain", "GET", "/a"], &["explain", "GET", "/a", "--json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        command.env_remove("LARDER_CONFIG").env_remove("LARDER_ADMIN");
        let output = command
            .args(line)
            .current_dir(directory.path())
            .stdout(writer)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .and_then(std::process::Child::wait_with_output)
            .unwrap();
        assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()), "{line:?}");
    }
}
