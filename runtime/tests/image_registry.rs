//! Pull, push, resolve and login against Debian's registry, and against one that misbehaves.
#![expect(clippy::unwrap_used, reason = "tests")]

mod image_support;

use std::io::Cursor;
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use image_support::{
    Answer, Built, Fake, Registry, build, from_parts, gzip, host_arch, refused, simple, store, tar_of,
};
use rswarm_runtime::image::{Digest, ImageError, ImageStore, PullStep, RegistryAuth, RegistryPolicy};

fn password(username: &str, password: &str) -> RegistryAuth {
    RegistryAuth::Password { username: username.into(), password: password.into() }
}

async fn pull(store: &ImageStore, reference: &str) -> Result<rswarm_runtime::image::Image, ImageError> {
    store.pull(reference, None, |_| {}).await
}

async fn put(
    store: &ImageStore,
    built: &Built,
    reference: &str,
    auth: Option<&RegistryAuth>,
) -> Result<String, ImageError> {
    store.load(Cursor::new(built.oci_layout(Some(reference)))).await.unwrap();
    store.push(reference, auth, |_| {}).await
}

fn content(image: &rswarm_runtime::image::Image) -> String {
    std::fs::read_to_string(image.layers.last().unwrap().join("etc/name")).unwrap()
}

#[tokio::test]
async fn what_is_pushed_by_one_node_is_pulled_by_another() {
    let registry = Registry::anonymous();
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (sender, receiver) = (store(from.path()), store(to.path()));
    let built = simple("pushed");
    let name = format!("{}/team/app:v1", registry.address);
    let digest = put(&sender, &built, &name, None).await.unwrap();
    assert_eq!(digest, built.digest(), "the manifest keeps its bytes");
    assert_eq!(sender.get(&name).unwrap().repo_digests, [format!("{}/team/app@{digest}", registry.address)]);

    let resolved = receiver.resolve(&name, None).await.unwrap();
    assert_eq!((&resolved.reference, &resolved.digest), (&name, &digest));
    assert_eq!(resolved.platforms, [("linux".to_owned(), host_arch().to_owned())]);

    let steps = Mutex::new(Vec::new());
    let image =
        receiver.pull(&resolved.pinned(), None, |progress| steps.lock().unwrap().push(progress.step)).await.unwrap();
    assert_eq!(content(&image), "pushed");
    assert_eq!(image.id.to_string(), built.id());
    assert_eq!(image.repo_tags, [""; 0], "a pinned pull gives no tag");
    let steps = steps.into_inner().unwrap();
    for wanted in [PullStep::Resolved(digest.parse().unwrap()), PullStep::Unpacking, PullStep::Done] {
        assert!(steps.contains(&wanted), "{wanted:?} of {steps:?}");
    }
    let image = pull(&receiver, &name).await.unwrap();
    assert_eq!(image.repo_tags, std::slice::from_ref(&name));

    // A pinned image that is here needs no registry.
    drop(registry);
    pull(&receiver, &resolved.pinned()).await.unwrap();
    let error = refused(pull(&receiver, &name).await);
    assert!(error.contains("connection refused"), "{error}");
}

#[tokio::test]
async fn plain_archives_are_pushed_with_a_manifest_made_for_them() {
    let registry = Registry::anonymous();
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sender = store(from.path());
    let built = simple("saved");
    sender.load(Cursor::new(built.docker_save(Some("app")))).await.unwrap();
    let name = format!("{}/app", registry.address);
    sender.tag("app", &name).unwrap();
    sender.push(&name, None, |_| {}).await.unwrap();
    let image = pull(&store(to.path()), &name).await.unwrap();
    assert_eq!((content(&image), image.id.to_string()), ("saved".to_owned(), built.id()));
}

#[tokio::test]
async fn a_registry_with_users_tells_strangers_and_wrong_passwords_apart() {
    let registry = Registry::with_user("ada", "secret");
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let (right, wrong) = (password("ada", "secret"), password("ada", "wrong"));
    let address = &registry.address;
    let name = format!("{address}/app:v1");
    let built = simple("private");
    let error = refused(put(&store, &built, &name, None).await);
    assert_eq!(error, format!("registry {address} wants authentication for \"{name}\": run rswarm login {address}"));
    store.push(&name, Some(&right), |_| {}).await.unwrap();

    for auth in [None, Some(&wrong)] {
        for error in [
            refused(store.resolve(&name, auth).await),
            refused(store.pull(&name, auth, |_| {}).await),
            refused(store.push(&name, auth, |_| {}).await),
        ] {
            let expected = if auth.is_some() { "refused the credentials given" } else { "wants authentication" };
            assert!(error.contains(expected) && error.ends_with(&format!("run rswarm login {address}")), "{error}");
        }
    }
    assert_eq!(store.resolve(&name, Some(&right)).await.unwrap().digest, built.digest());
    assert_eq!(content(&store.pull(&name, Some(&right), |_| {}).await.unwrap()), "private");

    store.check_login(address, &right).await.unwrap();
    store.check_login(&format!("http://{address}/v2/"), &right).await.unwrap();
    let error = refused(store.check_login(address, &wrong).await);
    assert!(error.contains("refused the credentials given"), "{error}");
    let error = refused(store.check_login("not a registry", &right).await);
    assert!(error.contains("not a registry"), "{error}");
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let registry = Registry::anonymous();
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let address = &registry.address;
    put(&store, &simple("x"), &format!("{address}/app:v1"), None).await.unwrap();
    for name in [
        format!("{address}/app:v2"),
        format!("{address}/nothing:v1"),
        format!("{address}/app@{}", Digest::of(b"nothing")),
    ] {
        let expected = format!("image \"{name}\" not found at registry {address} (404)");
        assert_eq!(refused(store.resolve(&name, None).await), expected);
        assert_eq!(refused(pull(&store, &name).await), expected);
    }
    assert!(refused(store.push("unknown:v1", None, |_| {}).await).contains("no such image"));
    assert!(refused(pull(&store, "Bad").await).contains("must be lower case"));
    store.check_login(address, &password("any", "body")).await.unwrap();
}

#[tokio::test]
async fn an_unreachable_registry_is_named_with_the_cause() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let error = refused(store(folder.path()).resolve(&format!("127.0.0.1:{port}/app"), None).await);
    assert_eq!(error, format!("cannot reach registry 127.0.0.1:{port}: connection refused"));
}

#[tokio::test]
async fn plain_http_elsewhere_than_on_loopback_must_be_allowed() {
    let built = simple("plain");
    let parts = Fake::parts(&[&built], &[("v1", &built.manifest)]);
    let fake = Fake::start(move |request| from_parts(&parts, request));
    // The same address in a form that is no loopback address for us.
    let registry = format!("2130706433:{}", fake.address.port());
    let name = format!("{registry}/app:v1");
    let folder = tempfile::tempdir().unwrap();
    let error = refused(store(folder.path()).resolve(&name, None).await);
    assert!(
        error.contains("does not speak TLS") && error.ends_with(&format!("--insecure-registry {registry}")),
        "{error}"
    );
    let allowed = ImageStore::open(&folder.path().join("b"), RegistryPolicy { insecure: vec![registry] }).unwrap();
    assert_eq!(content(&pull(&allowed, &name).await.unwrap()), "plain");
}

#[tokio::test]
async fn this_hosts_variant_of_an_index_is_pulled_under_the_indexs_digest() {
    let mine = simple("mine");
    let other = build(vec![tar_of(&[("etc/name", b"other")])], gzip, "s390x");
    let entry = |built: &Built, arch: &str| serde_json::json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": built.digest(), "size": built.manifest.len(), "platform": { "os": "linux", "architecture": arch } });
    let index = serde_json::to_vec(&serde_json::json!({ "schemaVersion": 2, "manifests": [entry(&other, "s390x"), entry(&mine, std::env::consts::ARCH), entry(&other, "unknown")] })).unwrap();
    let foreign =
        serde_json::to_vec(&serde_json::json!({ "schemaVersion": 2, "manifests": [entry(&other, "s390x")] })).unwrap();
    let parts = Fake::parts(
        &[&mine, &other],
        &[("v1", &index), ("foreign", &foreign), (&Digest::of(&index).to_string(), &index)],
    );
    let fake = Fake::start(move |request| from_parts(&parts, request));
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let resolved = store.resolve(&fake.reference(":v1"), None).await.unwrap();
    assert_eq!(resolved.digest, Digest::of(&index).to_string());
    assert!(
        resolved.platforms.contains(&("linux".into(), "s390x".into()))
            && resolved.platforms.contains(&("linux".into(), host_arch().into()))
    );
    let image = pull(&store, &resolved.pinned()).await.unwrap();
    assert_eq!(content(&image), "mine");
    assert_eq!(image.repo_digests, [fake.reference(&format!("@{}", resolved.digest))]);
    let error = refused(pull(&store, &fake.reference(":foreign")).await);
    assert!(error.contains("no variant for linux/") && error.contains("offers linux/s390x"), "{error}");
}

#[tokio::test]
async fn content_that_is_not_what_its_digest_says_is_never_kept() {
    let built = simple("true");
    let mut parts = Fake::parts(&[&built], &[("v1", &built.manifest)]);
    let layer = Digest::of(&built.blobs[1]);
    parts.get_mut(&format!("/v2/app/blobs/{layer}")).unwrap()[30] ^= 1;
    let fake = Fake::start(move |request| from_parts(&parts, request));
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let error = refused(pull(&store, &fake.reference(":v1")).await);
    assert!(error.contains("sent sha256:") && error.ends_with(&format!("for {layer}")), "{error}");
    assert!(store.list().is_empty());
    assert!(!folder.path().join("blobs/sha256").join(layer.hex()).exists());

    let other = simple("other");
    let parts = Fake::parts(&[], &[(&built.digest(), &other.manifest)]);
    let liar = Fake::start(move |request| from_parts(&parts, request));
    let error = refused(pull(&store, &liar.reference(&format!("@{}", built.digest()))).await);
    assert!(error.ends_with(&format!("sent {} for {}", other.digest(), built.digest())), "{error}");
}

#[tokio::test]
async fn more_than_promised_is_refused() {
    let built = simple("x");
    let layer = format!("/v2/app/blobs/{}", Digest::of(&built.blobs[0]));
    let mut parts = Fake::parts(&[&built], &[("v1", &built.manifest), ("huge", &vec![b' '; 5 << 20])]);
    parts.get_mut(&layer).unwrap().extend_from_slice(&[0; 100]);
    let fake = Fake::start(move |request| from_parts(&parts, request));
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let error = refused(pull(&store, &fake.reference(":v1")).await);
    assert!(error.ends_with(&format!("sent more than {} bytes", built.blobs[0].len())), "{error}");
    let error = refused(pull(&store, &fake.reference(":huge")).await);
    assert!(error.ends_with("sent more than 4194304 bytes"), "{error}");
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_ended() {
    let noise: Vec<u8> =
        (0..3_000_000_u64).map(|number| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let built = build(vec![tar_of(&[("noise", &noise)])], <[u8]>::to_vec, host_arch());
    let parts = Fake::parts(&[&built], &[("v1", &built.manifest)]);
    let layer = format!("/v2/app/blobs/{}", Digest::of(&built.blobs[0]));
    let cuts = AtomicUsize::new(0);
    let wanted = layer.clone();
    let fake = Fake::start(move |request| {
        let mut answer = from_parts(&parts, request);
        if request.path == wanted && cuts.fetch_add(1, Ordering::Relaxed) < 2 {
            answer.cut_after = Some(1_000_000);
        }
        answer
    });
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let retries = AtomicUsize::new(0);
    let count = |progress: rswarm_runtime::image::PullProgress| {
        if matches!(progress.step, PullStep::Retrying(_)) {
            retries.fetch_add(1, Ordering::Relaxed);
        }
    };
    let image = store.pull(&fake.reference(":v1"), None, count).await.unwrap();
    assert_eq!(std::fs::read(image.layers[0].join("noise")).unwrap(), noise);
    assert_eq!(retries.load(Ordering::Relaxed), 2);
    assert_eq!(fake.count("bytes=1000000-"), 1);
    assert_eq!(fake.count("bytes=2000000-"), 1);
}

#[tokio::test]
async fn a_registry_that_is_busy_is_asked_again() {
    let built = simple("busy");
    let parts = Fake::parts(&[&built], &[("v1", &built.manifest)]);
    let asked = AtomicUsize::new(0);
    let fake = Fake::start(move |request| {
        if request.path == "/v2/" {
            return Answer::ok(b"{}");
        }
        match asked.fetch_add(1, Ordering::Relaxed) {
            0 => Answer::status(429).header("retry-after", "1"),
            1 => Answer::status(503),
            3 => Answer::status(429),
            _ => from_parts(&parts, request),
        }
    });
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(content(&pull(&store(folder.path()), &fake.reference(":v1")).await.unwrap()), "busy");
}

#[tokio::test]
async fn pulls_of_the_same_image_at_once_bring_each_blob_once() {
    let built = simple("shared");
    let parts = Fake::parts(&[&built], &[("v1", &built.manifest), ("v2", &built.manifest)]);
    let fake = Fake::start(move |request| from_parts(&parts, request));
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let names: Vec<_> = (0..8).map(|number| fake.reference(if number % 2 == 0 { ":v1" } else { ":v2" })).collect();
    let images = futures::future::join_all(names.iter().map(|name| pull(&store, name))).await;
    assert!(images.iter().all(|image| image.as_ref().unwrap().id.to_string() == built.id()));
    for blob in built.blobs.iter().chain([&built.config]) {
        assert_eq!(fake.count(&format!("/blobs/{}", Digest::of(blob))), 1);
    }
    assert_eq!(store.list()[0].repo_tags.len(), 2);
}

#[tokio::test]
async fn token_services_are_asked_with_passwords_identity_tokens_and_not_at_all() {
    let built = simple("token");
    let parts = Fake::parts(&[&built], &[("v1", &built.manifest)]);
    let fake = Fake::start(move |request| {
        let authorization = request.headers.get("authorization").map(String::as_str);
        // ada:secret
        let is_ada = authorization == Some("Basic YWRhOnNlY3JldA==");
        if request.path.starts_with("/token") {
            let refreshed = request.method == "POST"
                && request.body.contains("refresh_token=long-lived")
                && request.body.contains("grant_type=refresh_token");
            return match (is_ada || refreshed, request.method.as_str(), authorization) {
                (true, ..) => Answer::ok(br#"{"token":"good","expires_in":300}"#),
                // Strangers get a token that opens nothing.
                (false, "GET", None) => Answer::ok(br#"{"token":"stranger"}"#),
                _ => Answer { status: 401, ..Answer::ok(br#"{"details":"incorrect username or password"}"#) },
            };
        }
        if authorization == Some("Bearer good") {
            return from_parts(&parts, request);
        }
        let host = &request.headers["host"];
        Answer::status(401).header("www-authenticate", &format!(r#"Bearer realm="http://{host}/token",service="test""#))
    });
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let name = fake.reference(":v1");
    let registry = fake.address.to_string();
    for auth in [
        password("ada", "secret"),
        RegistryAuth::IdentityToken("long-lived".into()),
        RegistryAuth::RegistryToken("good".into()),
    ] {
        store.check_login(&registry, &auth).await.unwrap();
        assert_eq!(store.resolve(&name, Some(&auth)).await.unwrap().digest, built.digest());
        assert_eq!(content(&store.pull(&name, Some(&auth), |_| {}).await.unwrap()), "token");
        store.remove(&name, true, &|_| false).unwrap();
    }
    let error = refused(store.pull(&name, None, |_| {}).await);
    assert!(error.contains("wants authentication"), "{error}");
    for auth in [password("ada", "wrong"), RegistryAuth::IdentityToken("old".into())] {
        for error in
            [refused(store.pull(&name, Some(&auth), |_| {}).await), refused(store.check_login(&registry, &auth).await)]
        {
            assert!(error.contains("refused the credentials given (incorrect username or password)"), "{error}");
        }
    }
    let bad = RegistryAuth::RegistryToken("bad".into());
    assert!(refused(store.pull(&name, Some(&bad), |_| {}).await).contains("refused the credentials given"));
}
