//! Images that a Docker engine has not: deployments wait for them, through kills, and say why they cannot be had.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bollard::query_parameters::{RemoveImageOptions, TagImageOptionsBuilder};
use bollard::{API_DEFAULT_VERSION, Docker};
use herm_testkit::client::{Answer, Client};
use herm_testkit::process::{Launch, wait_until};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::kill_matrix::{Life, walk};
use crate::reader::Reader;
use crate::world::{World, create, deployment_of, send, text, try_send};

const MODEL: &str = "anthropic/claude-sonnet-4.5";
/// The engine has it.
const PRESENT: &str = "herm-sandbox:test";
/// Images that a server fetches at once.
const FETCHES: usize = 4;

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

/// An image of a registry that is not there, under a name that no other test has.
struct Image {
    repository: String,
}

impl Image {
    fn none() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self { repository: format!("localhost:1/none-{}-{count}", std::process::id()) }
    }

    fn name(&self) -> String {
        format!("{}:latest", self.repository)
    }

    async fn engine() -> Docker {
        let host = docker_host();
        let docker = Docker::connect_with_unix(host.trim_start_matches("unix://"), 60, API_DEFAULT_VERSION);
        docker.unwrap().negotiate_version().await.unwrap()
    }

    /// Gives the engine the image.
    async fn put(&self) {
        let options = TagImageOptionsBuilder::new().repo(&self.repository).tag("latest").build();
        Self::engine().await.tag_image(PRESENT, Some(options)).await.unwrap();
    }

    async fn remove(&self) {
        let removed = Self::engine().await.remove_image(&self.name(), None::<RemoveImageOptions>, None).await;
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

async fn retry(client: &Client, deployment_id: &str) -> Answer {
    client.post(&format!("{}/retry", path_of(deployment_id)), &json!({})).await.unwrap()
}

async fn refused(client: &Client, deployment_id: &str) -> Value {
    let answer = try_send(client, deployment_id, json!({"content": "Hello?"})).await;
    json!([answer.status.as_u16(), answer.json()["error"]])
}

async fn an_image_is_waited_for(engine: &str) {
    let (world, image) = (World::sqlite().await, Image::none());
    let server = crate::world::start(&serve(&world)).await;
    let client = world.client_of(&server);
    let there = client.post("/v1/deployments", &body(engine, PRESENT)).await.unwrap().json();
    assert_eq!(there["status"], "ready", "the control: what is there is not waited for");
    let made = client.post("/v1/deployments", &body(engine, &image.name())).await.unwrap().json();
    assert_eq!((&made["status"], &made["sandbox"]["engine"]), (&json!("provisioning"), &json!(engine)));
    let id = text(&made, "deployment_id");
    assert_eq!(refused(&client, &id).await, json!([409, "deployment_not_ready"]));
    let mut reader = Reader::from_the_start(&id);
    reader.until(&client, |event| event.data["status"] == "error").await;
    says_why(&client, &id, &image).await;
    // Again in vain, then not.
    assert_eq!(retry(&client, &id).await.json()["status"], "provisioning");
    reader.until(&client, |event| event.data["status"] == "error").await;
    image.put().await;
    let retried = retry(&client, &id).await;
    assert_eq!((retried.status.as_u16(), &retried.json()["status"]), (200, &json!("ready")));
    assert_eq!(retried.json().get("error"), None);
    assert_eq!(retry(&client, &id).await.status, 409, "there is nothing to be done again");
    works_in_its_image(&world, &client, &id, &mut reader).await;
    server.terminate().unwrap();
    assert!(server.wait().await.unwrap().status.success());
    image.remove().await;
}

async fn says_why(client: &Client, id: &str, image: &Image) {
    let shown = client.get(&path_of(id)).await.unwrap().json();
    let (code, message) = (&shown["error"]["code"], text(&shown["error"], "message"));
    assert_eq!((&shown["status"], code), (&json!("error"), &json!("image_unavailable")));
    assert!(message.contains(&image.name()) && message.contains("sandbox.image"), "{message}");
    assert_eq!(refused(client, id).await, json!([409, "deployment_not_ready"]));
}

async fn works_in_its_image(world: &World, client: &Client, id: &str, reader: &mut Reader) {
    world.model.respond_with(crate::scripts::use_shell("echo ran in its image"));
    let run_id = send(client, id, "Go.").await;
    assert_eq!(reader.until_ended(client, &run_id).await, "completed");
    assert!(text(&reader.of("tool_result")[0].data, "result").contains("ran in its image"));
    let statuses: Vec<_> = reader.of("deployment_status").iter().map(|event| &event.data["status"]).collect();
    assert_eq!(statuses, ["provisioning", "error", "provisioning", "error", "ready"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_waited_for_with_docker() {
    an_image_is_waited_for("docker").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_waited_for_with_gvisor() {
    an_image_is_waited_for("gvisor").await;
}

/// Who misspelt an image names another, and provisions again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_image_takes_the_place_of_one_that_cannot_be_had() {
    let (world, image) = (World::sqlite().await, Image::none());
    let server = crate::world::start(&serve(&world)).await;
    let client = world.client_of(&server);
    let made = client.post("/v1/deployments", &body("docker", &image.name())).await.unwrap().json();
    let id = text(&made, "deployment_id");
    let mut reader = Reader::from_the_start(&id);
    reader.until(&client, |event| event.data["status"] == "error").await;
    let patch = json!({"sandbox": {"image": PRESENT}});
    let patched = client.call(http::Method::PATCH, &path_of(&id), Some(&patch)).await.unwrap().json();
    assert_eq!(patched["status"], "error", "it is provisioned again when it is asked for");
    assert_eq!(retry(&client, &id).await.json()["status"], "ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_provisions_through_a_kill_at_every_step() {
    let world = async || provisioning(World::sqlite().await);
    let points = walk(world, 2, |point| point.contains("provision"), |life| Box::pin(live(life))).await;
    for expected in ["provision:image", "provision:record", "commit.after:end_provisioning"] {
        assert!(points.contains_key(expected), "{expected} is not among {points:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_provisions_through_a_kill_at_every_step() {
    let world = async || provisioning(World::postgres().await);
    walk(world, 1, |point| point.contains("provision"), |life| Box::pin(live(life))).await;
}

fn provisioning(mut world: World) -> World {
    world.serve = serve(&world);
    world
}

/// Becomes ready at its third attempt.
async fn live(life: &mut Life<'_>) {
    let image = Image::none();
    let id = life.create(&body("docker", &image.name())).await;
    assert_eq!(settled(life, &id).await["error"]["code"], "image_unavailable");
    again(life, &id).await;
    let shown = settled(life, &id).await;
    assert_eq!(shown["error"]["code"], "image_unavailable");
    image.put().await;
    again(life, &id).await;
    let shown = settled(life, &id).await;
    assert_eq!((&shown["status"], shown.get("error")), (&json!("ready"), None));
    life.stop().await;
    image.remove().await;
}

/// One whose answer got lost may have acted.
async fn again(life: &mut Life<'_>, id: &str) {
    loop {
        let client = life.client().await;
        if let Ok(answer) = client.post(&format!("{}/retry", path_of(id)), &json!({})).await {
            assert!([200, 409].contains(&answer.status.as_u16()), "{}", answer.text());
            return;
        }
    }
}

/// The deployment when it is not `provisioning`.
async fn settled(life: &mut Life<'_>, id: &str) -> Value {
    loop {
        let client = life.client().await;
        if let Ok(answer) = client.get(&path_of(id)).await {
            let shown = answer.json();
            if shown["status"] != "provisioning" {
                return shown;
            }
        }
    }
}

/// A registry that takes every connection and never says a word.
struct Silent {
    address: std::net::SocketAddr,
    open: Arc<AtomicUsize>,
    most: Arc<Mutex<usize>>,
    hung_up: watch::Sender<bool>,
}

impl Silent {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(0)));
        let (counted, highest) = (Arc::clone(&open), Arc::clone(&most));
        let hung_up = watch::Sender::new(false);
        let end = hung_up.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let now = counted.fetch_add(1, Ordering::SeqCst) + 1;
                let mut highest = highest.lock().unwrap();
                *highest = now.max(*highest);
                let (counted, mut end) = (Arc::clone(&counted), end.subscribe());
                tokio::spawn(async move {
                    let mut bytes = [0; 4096];
                    let said = async { while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {} };
                    tokio::select! {
                        () = said => {}
                        _ = end.wait_for(|end| *end) => {}
                    }
                    drop(stream);
                    counted.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, open, most, hung_up }
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Ends every connection, those to come too.
    fn hang_up(&self) {
        self.hung_up.send_replace(true);
    }

    fn image(&self, n: usize) -> String {
        format!("{}/silent-{n}:1", self.address)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_silent_holds_up_neither_runs_nor_deletions() {
    let (world, registry) = (World::sqlite().await, Silent::start().await);
    let server = crate::world::start(&serve(&world)).await;
    let client = world.client_of(&server);
    let mut waiting = Vec::new();
    for n in 0..2 * FETCHES {
        let made = client.post("/v1/deployments", &body("docker", &registry.image(n))).await.unwrap().json();
        assert_eq!(made["status"], "provisioning");
        waiting.push(text(&made, "deployment_id"));
    }
    wait_until(|| registry.open() > 0).await;
    world.model.respond_with(crate::scripts::use_shell("true"));
    let other = create(&client, MODEL).await;
    let run_id = send(&client, &other, "Go on.").await;
    assert_eq!(Reader::from_the_start(&other).until_ended(&client, &run_id).await, "completed");
    assert!(*registry.most.lock().unwrap() <= FETCHES, "{:?}", registry.most);
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

/// What it was fetching is looked for again by the next server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_while_an_image_comes_leaves_it_to_the_next() {
    let (world, registry) = (World::sqlite().await, Silent::start().await);
    let server = crate::world::start(&serve(&world)).await;
    let repository = format!("{}/dying", registry.address);
    let image = Image { repository };
    let client = world.client_of(&server);
    let made = client.post("/v1/deployments", &body("docker", &image.name())).await.unwrap().json();
    let id = text(&made, "deployment_id");
    wait_until(|| registry.open() > 0).await;
    server.kill().await.unwrap();
    image.put().await;
    let server = crate::world::start(&serve(&world)).await;
    let client = world.client_of(&server);
    let mut reader = Reader::from_the_start(&id);
    reader.until(&client, |event| event.data["status"] == "ready").await;
    let statuses: Vec<_> = reader.of("deployment_status").iter().map(|event| &event.data["status"]).collect();
    assert_eq!(statuses, ["provisioning", "ready"]);
    image.remove().await;
}

/// The image that was fetched in vain is not the deployment's any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_is_named_while_another_is_fetched_takes_its_place() {
    let (world, registry) = (World::sqlite().await, Silent::start().await);
    let server = crate::world::start(&serve(&world)).await;
    let client = world.client_of(&server);
    let made = client.post("/v1/deployments", &body("docker", &registry.image(0))).await.unwrap().json();
    let id = text(&made, "deployment_id");
    wait_until(|| registry.open() > 0).await;
    let patch = json!({"sandbox": {"image": PRESENT}});
    let patched = client.call(http::Method::PATCH, &path_of(&id), Some(&patch)).await.unwrap().json();
    assert_eq!(patched["status"], "provisioning");
    registry.hang_up();
    let mut reader = Reader::from_the_start(&id);
    reader.until(&client, |event| event.data["status"] == "ready").await;
    let statuses: Vec<_> = reader.of("deployment_status").iter().map(|event| &event.data["status"]).collect();
    assert_eq!(statuses, ["provisioning", "ready"]);
}
