//! Who gets a session and who does not, and what an operator is told.

use std::path::Path;
use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::coordination::contract::{commit, create, get};

fn digest(user: &str, password: &str) -> Identity {
    let (user, password) = (user.to_owned(), password.to_owned());
    Identity::Digest { user, password }
}

fn sasl(user: &str, password: &str) -> Identity {
    let (user, password) = (user.to_owned(), password.to_owned());
    Identity::Sasl { user, password }
}

/// What an operator reads when the settings do not work.
async fn refusal(settings: Settings) -> (OpenError, String) {
    let error = ZooKeeper::connect(settings).await.unwrap_err();
    let text = error.to_string();
    (error, text)
}

#[tokio::test]
async fn what_an_identity_makes_is_for_it_only() {
    let open_to_all = settings(shared::zookeeper().unwrap());
    let ours = Settings {
        identity: digest("frontend", "right"),
        ..open_to_all.clone()
    };
    let store = open(&ours).await;
    commit(&store, [create("/a/b", "x")]).await;
    drop(store);
    assert_eq!(
        Some((b"x".to_vec(), 0)),
        get(&open(&ours).await, "/a/b").await
    );

    for identity in [digest("frontend", "wrong"), Identity::Anonymous] {
        let theirs = Settings {
            identity,
            ..ours.clone()
        };
        let (error, text) = refusal(theirs).await;
        assert!(matches!(error, OpenError::Access { .. }), "{error:?}");
        assert!(text.contains(&ours.chroot), "{text}");
    }
}

#[tokio::test]
async fn an_access_list_that_changes_is_a_refusal_and_no_conflict() {
    let ours = Settings {
        identity: digest("frontend", "right"),
        ..settings(shared::zookeeper().unwrap())
    };
    let store = open(&ours).await;
    commit(&store, [create("/a", "")]).await;
    let operator = Client::connector().with_auth("digest", b"frontend:right");
    let operator = operator.connect(&ours.hosts).await.unwrap();
    let nobody = [zookeeper_client::Acl::new(
        zookeeper_client::Permission::READ,
        zookeeper_client::AuthId::new("world", "anyone"),
    )];
    let at = format!("{}/a", ours.chroot);
    operator.set_acl(&at, &nobody, None).await.unwrap();
    let refused = store.commit(vec![create("/a/b", "")]).await;
    assert!(
        matches!(refused, Err(CommitError::Down(Outage::Refused(_)))),
        "{refused:?}"
    );
    assert_eq!(Some((Vec::new(), 0)), get(&store, "/a").await);
}

#[tokio::test]
async fn only_the_chroot_is_touched() {
    let servers = Servers::many(1).await;
    let settings = Settings {
        chroot: "/outer/inner/distci".to_owned(),
        ..settings(servers.connect())
    };
    commit(&open(&settings).await, [create("/a", "")]).await;
    // A second one finds the chroot there.
    assert!(get(&open(&settings).await, "/a").await.is_some());
    let client = Client::connect(&servers.connect()).await.unwrap();
    for (dir, names) in [
        ("/", vec!["outer", "zookeeper"]),
        ("/outer", vec!["inner"]),
        ("/outer/inner", vec!["distci"]),
        ("/outer/inner/distci", vec!["a"]),
    ] {
        let mut found = client.list_children(dir).await.unwrap();
        found.sort();
        assert_eq!(names, found);
    }
}

#[tokio::test]
async fn sasl_takes_the_right_password_only() {
    let dir = tempfile::tempdir().unwrap();
    let jaas = dir.path().join("jaas.conf");
    let module = "org.apache.zookeeper.server.auth.DigestLoginModule";
    let users = format!("Server {{ {module} required user_frontend=\"right\"; }};");
    std::fs::write(&jaas, users).unwrap();
    let provider = "org.apache.zookeeper.server.auth.SASLAuthenticationProvider";
    let servers = Servers::start(ZooKeeperPlan {
        extra_config: vec![format!("authProvider.1={provider}")],
        extra_jvm: vec![format!(
            "-Djava.security.auth.login.config={}",
            jaas.display()
        )],
        ..ZooKeeperPlan::default()
    })
    .await;
    let ours = Settings {
        identity: sasl("frontend", "right"),
        ..settings(servers.connect())
    };
    let store = open(&ours).await;
    commit(&store, [create("/a", "")]).await;

    let wrong = Settings {
        identity: sasl("frontend", "wrong"),
        ..ours.clone()
    };
    let (error, text) = refusal(wrong).await;
    assert!(
        matches!(error, OpenError::Authentication { .. }),
        "{error:?}"
    );
    assert!(
        text.contains("\"frontend\"") && !text.contains("wrong"),
        "{text}"
    );
    let nobody = Settings {
        identity: Identity::Anonymous,
        ..ours
    };
    let (error, _) = refusal(nobody).await;
    assert!(matches!(error, OpenError::Access { .. }), "{error:?}");
}

#[tokio::test]
async fn a_revoked_password_fences() {
    let dir = tempfile::tempdir().unwrap();
    let jaas = dir.path().join("jaas.conf");
    let module = "org.apache.zookeeper.server.auth.DigestLoginModule";
    let users = |password| format!("Server {{ {module} required user_frontend=\"{password}\"; }};");
    std::fs::write(&jaas, users("right")).unwrap();
    let provider = "org.apache.zookeeper.server.auth.SASLAuthenticationProvider";
    let servers = Servers::start(ZooKeeperPlan {
        extra_config: vec![format!("authProvider.1={provider}")],
        extra_jvm: vec![format!(
            "-Djava.security.auth.login.config={}",
            jaas.display()
        )],
        ..ZooKeeperPlan::default()
    })
    .await;
    let store = open(&Settings {
        identity: sasl("frontend", "right"),
        ..settings(servers.connect())
    })
    .await;
    let mut watch = store.watch(&NodePath::root());
    std::fs::write(&jaas, users("changed")).unwrap();
    servers.treat(|servers| servers.restart(0)).await;
    let mut health = store.health();
    health
        .wait_for(|health| *health == Health::Fenced)
        .await
        .unwrap();
    let refused = store.commit(vec![create("/a", "")]).await;
    assert!(
        matches!(refused, Err(CommitError::Down(Outage::Fenced))),
        "{refused:?}"
    );
    while watch.next().await.is_some() {}
    assert_eq!(None, store.watch(&NodePath::root()).next().await);
}

#[tokio::test]
async fn certificates_of_both_sides_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let tls = certificates(dir.path());
    let port = free_port().await;
    let file = |name: &str| dir.path().join(name).display().to_string();
    let servers = Servers::start(ZooKeeperPlan {
        extra_config: vec![
            "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory".to_owned(),
            format!("secureClientPort={port}"),
            format!("ssl.keyStore.location={}", file("server.pem")),
            "ssl.keyStore.type=PEM".to_owned(),
            format!("ssl.trustStore.location={}", file("ca.pem")),
            "ssl.trustStore.type=PEM".to_owned(),
        ],
        ..ZooKeeperPlan::default()
    })
    .await;
    let ours = Settings {
        tls: Some(tls.clone()),
        session_timeout: Duration::from_secs(4),
        ..settings(format!("127.0.0.1:{port}"))
    };
    let store = open(&ours).await;
    commit(&store, [create("/a/b", "x")]).await;
    assert_eq!(Some((b"x".to_vec(), 0)), get(&store, "/a/b").await);

    let without_certificate = Tls {
        certificate: None,
        key: None,
        ..tls.clone()
    };
    let other_authority = Tls {
        ca: dir.path().join("other.pem"),
        ..tls.clone()
    };
    for tls in [Some(without_certificate), Some(other_authority), None] {
        let (error, text) = refusal(Settings {
            tls,
            session_timeout: Duration::from_secs(1),
            ..ours.clone()
        })
        .await;
        assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
        assert!(text.contains("TLS"), "{text}");
    }
    let (error, text) = refusal(Settings {
        tls: Some(Tls {
            ca: dir.path().join("none.pem"),
            ..tls
        }),
        ..ours
    })
    .await;
    assert!(matches!(error, OpenError::Certificate { .. }), "{error:?}");
    assert!(text.contains("none.pem"), "{text}");
    drop(servers);
}

/// Makes two authorities, and of the first one a certificate for a server and one for a client.
fn certificates(dir: &Path) -> Tls {
    std::fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    for authority in ["ca", "other"] {
        let words = "req -x509 -newkey rsa:2048 -nodes -days 2";
        let files = format!("-keyout {authority}.key -out {authority}.pem -subj /CN={authority}");
        openssl(dir, &format!("{words} {files}"));
    }
    for name in ["server", "client"] {
        let files = format!("-keyout {name}.key -out {name}.csr -subj /CN={name}");
        openssl(dir, &format!("req -newkey rsa:2048 -nodes {files}"));
        let by = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names";
        openssl(
            dir,
            &format!("x509 -req -in {name}.csr -out {name}.crt {by}"),
        );
    }
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let both = read("server.key") + &read("server.crt");
    std::fs::write(dir.join("server.pem"), both).unwrap();
    Tls {
        ca: dir.join("ca.pem"),
        certificate: Some(dir.join("client.crt")),
        key: Some(dir.join("client.key")),
    }
}

fn openssl(dir: &Path, words: &str) {
    let openssl = Command::new("openssl")
        .args(words.split(' '))
        .current_dir(dir)
        .output();
    let output =
        openssl.expect("the command openssl makes the certificates of this test: install it");
    assert!(output.status.success(), "openssl {words}: {output:?}");
}

/// A port that was free a moment ago.
async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn an_unreachable_ensemble_is_named_server_by_server() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap();
    let nobody = format!("127.0.0.1:{}", free_port().await);
    let (error, text) = refusal(Settings {
        session_timeout: Duration::from_secs(1),
        ..settings(format!("{nobody},{silent}"))
    })
    .await;
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
    assert!(text.contains(&format!("{nobody}: ")), "{text}");
    assert!(text.contains("refused"), "{text}");
}

#[tokio::test]
async fn a_server_without_quorum_is_called_read_only() {
    let servers = Servers::start(ZooKeeperPlan {
        servers: 3,
        extra_jvm: vec!["-Dreadonlymode.enabled=true".to_owned()],
        ..ZooKeeperPlan::default()
    })
    .await;
    servers
        .treat(|servers| servers.kill(0).and_then(|()| servers.kill(1)))
        .await;
    let settings = Settings {
        session_timeout: Duration::from_secs(2),
        ..settings(servers.connect())
    };
    // Until it has given up the election, the last server gives no session at all.
    let text = eventually("a read-only server", || async {
        let (error, text) = refusal(settings.clone()).await;
        matches!(error, OpenError::ReadOnly { .. }).then_some(text)
    })
    .await;
    assert!(text.contains("read-only"), "{text}");
}

#[tokio::test]
async fn a_server_without_recursive_watches_is_called_too_old() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hosts = listener.local_addr().unwrap().to_string();
    let server = async {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            old_server(connection).await;
        }
    };
    let (error, text) = tokio::select! {
        refusal = refusal(settings(hosts)) => refusal,
        () = server => unreachable!("it serves for ever"),
    };
    assert!(matches!(error, OpenError::TooOld { .. }), "{error:?}");
    assert!(text.contains("3.6"), "{text}");
}

/// Gives a session, and knows no request but the ping.
async fn old_server(mut connection: TcpStream) {
    const PING: i32 = 11;
    const UNIMPLEMENTED: i32 = -6;
    let mut is_new = true;
    while let Ok(length) = connection.read_i32().await {
        let mut request = vec![0; usize::try_from(length).unwrap()];
        connection.read_exact(&mut request).await.unwrap();
        let mut reply = Vec::new();
        if std::mem::take(&mut is_new) {
            reply.extend(0_i32.to_be_bytes()); // protocol
            reply.extend(8_000_i32.to_be_bytes()); // timeout
            reply.extend(1_i64.to_be_bytes()); // session
            reply.extend(16_i32.to_be_bytes());
            reply.extend([7; 16]); // its password
            reply.push(0); // not read-only
        } else {
            let is_ping = request[4..8] == PING.to_be_bytes();
            let error = if is_ping { 0 } else { UNIMPLEMENTED };
            reply.extend(&request[0..4]);
            reply.extend(0_i64.to_be_bytes()); // zxid
            reply.extend(error.to_be_bytes());
        }
        let length = i32::try_from(reply.len()).unwrap();
        connection.write_i32(length).await.unwrap();
        connection.write_all(&reply).await.unwrap();
    }
}

#[tokio::test]
async fn settings_that_cannot_be_meant_are_refused() {
    let good = settings("127.0.0.1:1".to_owned());
    let wrong = [
        Settings {
            chroot: "/".to_owned(),
            ..good.clone()
        },
        Settings {
            chroot: "distci".to_owned(),
            ..good.clone()
        },
        Settings {
            hosts: "127.0.0.1:1/distci".to_owned(),
            ..good.clone()
        },
        Settings {
            hosts: String::new(),
            ..good.clone()
        },
        Settings {
            identity: digest("a:b", "c"),
            ..good.clone()
        },
    ];
    for settings in wrong {
        let (error, _) = refusal(settings).await;
        assert!(matches!(error, OpenError::Setting { .. }), "{error:?}");
    }
}

#[test]
fn a_password_is_never_printed() {
    for identity in [digest("frontend", "secret"), sasl("frontend", "secret")] {
        let settings = Settings {
            identity,
            ..settings("127.0.0.1:1".to_owned())
        };
        let printed = format!("{settings:?} {}", settings.identity);
        assert!(
            printed.contains("frontend") && !printed.contains("secret"),
            "{printed}"
        );
    }
}
