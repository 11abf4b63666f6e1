//! Tests of deployments whose image does not yet exist on the Docker engine. Such a deployment has the status
//! `provisioning` while its image is pulled, even if the server is killed during the pull. If the pull fails, the
//! deployment reports the reason.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bollard::query_parameters::{RemoveImageOptions, TagImageOptionsBuilder};
use bollard::{API_DEFAULT_VERSION, Docker};
use herm_testkit::client::{Client, Response};
use herm_testkit::process::{Launch, wait_until};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::kill_matrix::{RestartingServer, kill_at_each_failpoint};
use crate::reader::Reader;
use crate::world::{World, create, deployment_of, send, text, try_send};

const MODEL: &str = "anthropic/claude-sonnet-4.5";
/// An image that exists on the test's Docker engine, so it need not be pulled.
const PRESENT: &str = "herm-sandbox:test";
/// The maximum number of images that a server pulls in parallel. Further pulls wait until another pull has ended.
const MAX_PULLS: usize = 4;

fn docker_host() -> String {
    let host = std::env::var("HERM_TEST_DOCKER_HOST");
    host.expect("HERM_TEST_DOCKER_HOST is not set: run the tests through scripts/docker.sh")
}

fn serve(world: &World) -> Launch {
    world
        .serve
        .clone()
        .env("HERM_DOCKER_HOST", docker_host())
        .env("HERM_SANDBOX_IMAGE", PRESENT)
        .env("HERM_SANDBOX", "refuse")
}

/// An image that cannot be pulled, because its registry is unreachable. No other test uses its name.
struct Image {
    repository: String,
}

impl Image {
    fn missing() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self { repository: format!("localhost:1/none-{}-{count}", std::process::id()) }
    }

    fn name(&self) -> String {
        format!("{}:latest", self.repository)
    }

    async fn docker() -> Docker {
        let host = docker_host();
        let docker = Docker::connect_with_unix(host.trim_start_matches("unix://"), 60, API_DEFAULT_VERSION);
        docker.unwrap().negotiate_version().await.unwrap()
    }

    /// Makes the image available on the Docker engine by adding its name as a tag of [`PRESENT`].
    async fn add(&self) {
        let options = TagImageOptionsBuilder::new().repo(&self.repository).tag("latest").build();
        Self::docker().await.tag_image(PRESENT, Some(options)).await.unwrap();
    }

    async fn remove(&self) {
        let removed = Self::docker().await.remove_image(&self.name(), None::<RemoveImageOptions>, None).await;
        removed.unwrap();
    }
}

fn body(engine: &str, image: &str) -> Value {
    let mut body = deployment_of(MODEL);
    body["sandbox"] = json!({"type": engine, "image": image});
    body
}

fn path_of(deployment_id: &str) -> String {
    format!("/v1/deployments/{deployment_id}")
}

async fn retry(client: &Client, deployment_id: &str) -> Response {
    client.post(&format!("{}/retry", path_of(deployment_id)), &json!({})).await.unwrap()
}

/// Sends a message to a deployment that is not ready. Returns the HTTP status and the error code of the response.
async fn send_error(client: &Client, deployment_id: &str) -> Value {
    let response = try_send(client, deployment_id, json!({"content": "Hello?"})).await;
    json!([response.status.as_u16(), response.json()["error"]])
}

async fn provisioning_waits_for_an_image(engine: &str) {
    let (world, image) = (World::sqlite().await, Image::missing());
    let server = crate::world::start(&serve(&world)).await;
    let client = world.client_of(&server);
    let ready = client.post("/v1/deployments", &body(engine, PRESENT)).await.unwrap().json();
    assert_eq!(ready["status"], "ready", "an image that exists needs no provisioning");
    let created = client.post("/v1/deployments", &body(engine, &image.name())).await.unwrap().json();
    assert_eq!((&created["status"], &created["sandbox"]["engine"]), (&json!("provisioning"), &json!(engine)));
    let id = text(&created, "deployment_id");
    assert_eq!(send_error(&client, &id).await, json!([409, "deployment_not_ready"]));
    let mut reader = Reader::from_the_start(&id);
    reader.until(&client, |event| event.data["status"] == "error").await;
    check_error(&client, &id, &image).await;
    // The first retry fails because the image still does not exist. The second retry succeeds because the test has
    // added the image by then.
    assert_eq!(retry(&client, &id).await.json()["status"], "provisioning");
    reader.until(&client, |event| event.data["status"] == "error").await;
    image.add().await;
    let retried = retry(&client, &id).await;
    assert_eq!((retried.status.as_u16(), &retried.json()["status"]), (200, &json!("ready")));
    assert_eq!(retried.json().get("error"), None);
    assert_eq!(retry(&client, &id).await.status, 409, "a ready deployment cannot be retried");
    run_in_image(&world, &client, &id, &mut reader).await;
    server.terminate().unwrap();
    assert!(server.wait().await.unwrap().status.success());
    image.remove().await;
}

async fn check_error(client: &Client, id: &str, image: &Image) {
    let deployment = client.get(&path_of(id)).await.unwrap().json();
    let (code, message) = (&deployment["error"]["code"], text(&deployment["error"], "message"));
    assert_eq!((&deployment["status"], code), (&json!("error"), &json!("image_unavailable")));
    assert!(message.contains(&image.name()) && message.contains("sandbox.image"), "{message}");
    assert_eq!(send_error(client, id).await, json!([409, "deployment_not_ready"]));
}

async fn run_in_image(world: &World, client: &Client, id: &str, reader: &mut Reader) {
    world.model.respond_with(crate::model_scripts::use_shell("echo ran in the image"));
    let run_id = send(client, id, "Go.").await;
    assert_eq!(reader.until_ended(client, &run_id).await, "completed");
    assert!(text(&reader.named("tool_result")[0].data, "result").contains("ran in the image"));
    let statuses: Vec<_> =
        reader.named("deployment_status").iter().map(|event| &event.data["status"]).collect();
    assert_eq!(statuses, ["provisioning", "error", "provisioning", "error", "ready"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_provisioning_waits_for_an_image() {
    provisioning_waits_for_an_image("docker").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gvisor_provisioning_waits_for_an_image() {
    provisioning_waits_for_an_image("gvisor").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_becomes_ready_after_its_image_is_replaced_and_retried() {
    let (world, image) = (World::sqlite().await, Image::missing());
    let server = crate::world::start(&serve(&world)).await;
    let client = world.client_of(&server);
    let created = client.post("/v1/deployments", &body("docker", &image.name())).await.unwrap().json();
    let id = text(&created, "deployment_id");
    let mut reader = Reader::from_the_start(&id);
    reader.until(&client, |event| event.data["status"] == "error").await;
    let patch = json!({"sandbox": {"image": PRESENT}});
    let patched = client.call(http::Method::PATCH, &path_of(&id), Some(&patch)).await.unwrap().json();
    assert_eq!(patched["status"], "error", "only a retry provisions again");
    assert_eq!(retry(&client, &id).await.json()["status"], "ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_provisions_through_a_kill_at_every_failpoint() {
    let world = async || with_docker(World::sqlite().await);
    let points = kill_at_each_failpoint(
        world,
        2,
        |point| point.contains("provision"),
        |server| Box::pin(run_scenario(server)),
    )
    .await;
    for expected in ["provision:image", "provision:record", "commit.after:end_provisioning"] {
        assert!(points.contains_key(expected), "{expected} is not among {points:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_provisions_through_a_kill_at_every_failpoint() {
    let world = async || with_docker(World::postgres().await);
    kill_at_each_failpoint(
        world,
        1,
        |point| point.contains("provision"),
        |server| Box::pin(run_scenario(server)),
    )
    .await;
}

fn with_docker(mut world: World) -> World {
    world.serve = serve(&world);
    world
}

/// Creates a deployment whose image does not exist. The first two attempts to provision it fail. The third succeeds,
/// because the test has added the image by then.
async fn run_scenario(server: &mut RestartingServer<'_>) {
    let image = Image::missing();
    let id = server.create(&body("docker", &image.name())).await;
    assert_eq!(wait_until_provisioned(server, &id).await["error"]["code"], "image_unavailable");
    send_retry(server, &id).await;
    let deployment = wait_until_provisioned(server, &id).await;
    assert_eq!(deployment["error"]["code"], "image_unavailable");
    image.add().await;
    send_retry(server, &id).await;
    let deployment = wait_until_provisioned(server, &id).await;
    assert_eq!((&deployment["status"], deployment.get("error")), (&json!("ready"), None));
    server.stop().await;
    image.remove().await;
}

/// Retries the provisioning. Accepts status 409 too: the server may have executed an earlier request whose response was
/// lost.
async fn send_retry(server: &mut RestartingServer<'_>, id: &str) {
    loop {
        let client = server.client().await;
        if let Ok(response) = client.post(&format!("{}/retry", path_of(id)), &json!({})).await {
            assert!([200, 409].contains(&response.status.as_u16()), "{}", response.text());
            return;
        }
    }
}

/// Waits until the deployment's status is no longer `provisioning`. Returns the deployment.
async fn wait_until_provisioned(server: &mut RestartingServer<'_>, id: &str) -> Value {
    loop {
        let client = server.client().await;
        if let Ok(response) = client.get(&path_of(id)).await {
            let deployment = response.json();
            if deployment["status"] != "provisioning" {
                return deployment;
            }
        }
    }
}

/// An image registry that accepts every connection and never responds.
struct SilentRegistry {
    address: std::net::SocketAddr,
    open: Arc<AtomicUsize>,
    max_open: Arc<Mutex<usize>>,
    is_closed: watch::Sender<bool>,
}

impl SilentRegistry {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, max_open) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(0)));
        let (counted, highest) = (Arc::clone(&open), Arc::clone(&max_open));
        let is_closed = watch::Sender::new(false);
        let end = is_closed.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let now = counted.fetch_add(1, Ordering::SeqCst) + 1;
                let mut highest = highest.lock().unwrap();
                *highest = now.max(*highest);
                let (counted, mut end) = (Arc::clone(&counted), end.subscribe());
                tokio::spawn(async move {
                    let mut bytes = [0; 4096];
                    let reading = async { while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {} };
                    tokio::select! {
                        () = reading => {}
                        _ = end.wait_for(|end| *end) => {}
                    }
                    drop(stream);
                    counted.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, open, max_open, is_closed }
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Closes all open connections, and closes future ones as soon as they are accepted.
    fn close(&self) {
        self.is_closed.send_replace(true);
    }

    fn image(&self, n: usize) -> String {
        format!("{}/silent-{n}:1", self.address)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_registry_delays_neither_runs_nor_deletions() {
    let (world, registry) = (World::sqlite().await, SilentRegistry::start().await);
    let server = crate::world::start(&serve(&world)).await;
    let client = world.client_of(&server);
    let mut waiting = Vec::new();
    for n in 0..2 * MAX_PULLS {
        let created =
            client.post("/v1/deployments", &body("docker", &registry.image(n))).await.unwrap().json();
        assert_eq!(created["status"], "provisioning");
        waiting.push(text(&created, "deployment_id"));
    }
    wait_until(|| registry.open() > 0).await;
    world.model.respond_with(crate::model_scripts::use_shell("true"));
    let other = create(&client, MODEL).await;
    let run_id = send(&client, &other, "Go on.").await;
    assert_eq!(Reader::from_the_start(&other).until_ended(&client, &run_id).await, "completed");
    assert!(*registry.max_open.lock().unwrap() <= MAX_PULLS, "{:?}", registry.max_open);
    for id in &waiting {
        let mut reader = Reader::from_the_start(id);
        reader.until(&client, |event| event.data["status"] == "provisioning").await;
        assert_eq!(client.delete(&path_of(id)).await.unwrap().status, 200);
        reader.until(&client, |event| event.data["status"] == "deleted").await;
        assert_eq!(client.get(&path_of(id)).await.unwrap().status, 404);
    }
    server.terminate().unwrap();
    let finished = server.wait().await.unwrap();
    assert!(finished.status.success(), "{finished:?}");
}

/// The server is killed during the pull, and the test adds the image before the next server starts. That server must
/// find the image and complete the provisioning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_interrupted_by_a_kill_is_continued_by_the_next_server() {
    let (world, registry) = (World::sqlite().await, SilentRegistry::start().await);
    let server = crate::world::start(&serve(&world)).await;
    let repository = format!("{}/dying", registry.address);
    let image = Image { repository };
    let client = world.client_of(&server);
    let created = client.post("/v1/deployments", &body("docker", &image.name())).await.unwrap().json();
    let id = text(&created, "deployment_id");
    wait_until(|| registry.open() > 0).await;
    server.kill().await.unwrap();
    image.add().await;
    let server = crate::world::start(&serve(&world)).await;
    let client = world.client_of(&server);
    let mut reader = Reader::from_the_start(&id);
    reader.until(&client, |event| event.data["status"] == "ready").await;
    let statuses: Vec<_> =
        reader.named("deployment_status").iter().map(|event| &event.data["status"]).collect();
    assert_eq!(statuses, ["provisioning", "ready"]);
    image.remove().await;
}

/// An update replaces the deployment's image while the old image is being pulled. That pull then fails, which must not
/// affect the deployment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_is_replaced_during_its_pull_does_not_fail_the_deployment() {
    let (world, registry) = (World::sqlite().await, SilentRegistry::start().await);
    let server = crate::world::start(&serve(&world)).await;
    let client = world.client_of(&server);
    let created = client.post("/v1/deployments", &body("docker", &registry.image(0))).await.unwrap().json();
    let id = text(&created, "deployment_id");
    wait_until(|| registry.open() > 0).await;
    let patch = json!({"sandbox": {"image": PRESENT}});
    let patched = client.call(http::Method::PATCH, &path_of(&id), Some(&patch)).await.unwrap().json();
    assert_eq!(patched["status"], "provisioning");
    registry.close();
    let mut reader = Reader::from_the_start(&id);
    reader.until(&client, |event| event.data["status"] == "ready").await;
    let statuses: Vec<_> =
        reader.named("deployment_status").iter().map(|event| &event.data["status"]).collect();
    assert_eq!(statuses, ["provisioning", "ready"]);
}
