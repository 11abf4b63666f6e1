//! One container: made, watched, removed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker as Client;
use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType, ResourcesUlimits};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, RemoveContainerOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use futures_util::StreamExt as _;
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::{Runtime, is_status, refused};
use crate::engine::{Body, GUEST_PATH, MASKED, SHM_BYTES, SOCKET_DIR, TMP_BYTES, USUAL_ENV};
use crate::place::Place;
use crate::shared::Shared;
use crate::spec::{Error, Spec};

/// Names the data directory whose server started a container.
const INSTANCE_LABEL: &str = "dev.herm.instance";
const SANDBOX_LABEL: &str = "dev.herm.sandbox";
/// What else is hidden: what an engine hides of itself, which is not said again if something else is, and all that
/// tells of the machine's hardware.
const MASKED_IN_CONTAINERS: [&str; 5] =
    ["/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/scsi", "/sys"];
/// How long the engine may take to remove a container.
const REMOVE_LIMIT: Duration = Duration::from_secs(120);
/// Bytes of its program's own output that the engine keeps: why a guest did not start.
const LOG_SIZE: &str = "64k";

pub(super) fn name_of(instance: &str, sandbox_id: &str) -> String {
    format!("herm-{instance}-{sandbox_id}")
}

/// What a container is made of.
pub(super) struct Wanted<'a> {
    pub(super) image: &'a str,
    pub(super) runtime: Runtime,
    pub(super) shared: &'a Shared,
    pub(super) place: &'a Place,
    pub(super) spec: &'a Spec,
    pub(super) user_id: u32,
    /// In which the user has a name.
    pub(super) passwd_file: PathBuf,
    pub(super) group_file: PathBuf,
    pub(super) away: Duration,
}

/// A container, by its name.
pub(super) struct Container {
    client: Client,
    name: Arc<str>,
    /// What is known of its end, once somebody wants to know.
    end: watch::Sender<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotWatched,
    Watched,
    Ended,
}

impl Container {
    pub(super) fn new(client: Client, name: String) -> Self {
        Self { client, name: name.into(), end: watch::Sender::new(End::NotWatched) }
    }

    /// Makes the container and starts it; one that is left by this name is removed first.
    pub(super) async fn start(&self, wanted: &Wanted<'_>) -> Result<(), Error> {
        self.remove().await?;
        let options = CreateContainerOptionsBuilder::new().name(&self.name).build();
        let body = body(wanted);
        self.client.create_container(Some(options), body).await.map_err(|error| {
            if is_status(&error, 404) {
                let reason = "it is not there".to_owned();
                return Error::NoImage { image: wanted.image.to_owned(), reason };
            }
            refused(&error)
        })?;
        if let Err(error) = self.client.start_container(&self.name, None).await {
            // Why it could not start is more than that it could not be removed.
            let _ = self.remove().await;
            return Err(refused(&error));
        }
        Ok(())
    }

    /// Removes the container with all that runs in it, and waits until it is gone.
    async fn remove(&self) -> Result<(), Error> {
        let gone = async {
            loop {
                let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
                match self.client.remove_container(&self.name, Some(options)).await {
                    Err(error) if is_status(&error, 404) => return Ok(()),
                    // It is being removed already, by the engine itself perhaps.
                    Err(error) if is_status(&error, 409) => tokio::time::sleep(REMOVE_EVERY).await,
                    // The engine was told of no end within its own time, as of a container full of processes.
                    Err(error) if is_status(&error, 500) => {
                        tracing::debug!(container = &*self.name, %error, "the engine is asked again to remove");
                        tokio::time::sleep(ASK_EVERY).await;
                    }
                    Err(error) => return Err(refused(&error)),
                    Ok(()) => {}
                }
            }
        };
        tokio::time::timeout(REMOVE_LIMIT, gone).await.unwrap_or(Err(Error::Undead))
    }

    /// Watches for the end, on a task of its own.
    fn watch(&self) {
        let is_first = self.end.send_if_modified(|end| {
            let is_first = *end == End::NotWatched;
            if is_first {
                *end = End::Watched;
            }
            is_first
        });
        if !is_first {
            return;
        }
        let (client, name, end) = (self.client.clone(), Arc::clone(&self.name), self.end.clone());
        tokio::spawn(async move {
            wait_for_end(&client, &name, &end).await;
            end.send_replace(End::Ended);
        });
    }
}

/// Between two looks whether a container is gone.
const REMOVE_EVERY: Duration = Duration::from_millis(20);
/// How long is waited before an engine that gave no answer is asked again.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// Waits until the container does not run. An engine that is away says nothing of its containers: it is asked until it
/// answers, or nobody wants to know any more.
async fn wait_for_end(client: &Client, name: &str, end: &watch::Sender<End>) {
    loop {
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        match client.wait_container(name, Some(options)).next().await {
            Some(Ok(_) | Err(bollard::errors::Error::DockerContainerWaitError { .. })) => return,
            Some(Err(error)) if is_status(&error, 404) => return,
            _ => {}
        }
        tokio::select! {
            () = tokio::time::sleep(ASK_EVERY) => {}
            () = end.closed() => return,
        }
    }
}

#[async_trait]
impl Body for Container {
    fn met(&self, _stream: &UnixStream) {}

    async fn kill(&self) {
        if let Err(error) = self.remove().await {
            tracing::warn!(
                container = &*self.name,
                error = &error as &dyn std::error::Error,
                "failed to remove"
            );
        }
    }

    async fn ended(&self) {
        let mut end = self.end.subscribe();
        self.watch();
        // The sender lives as long as this borrow.
        let _ = end.wait_for(|end| *end == End::Ended).await;
    }

    async fn may_run(&self) -> bool {
        match self.client.inspect_container(&self.name, None::<InspectContainerOptions>).await {
            Ok(container) => container.state.and_then(|state| state.running) == Some(true),
            // An engine that is away says nothing of its containers.
            Err(error) => !is_status(&error, 404),
        }
    }

    async fn clear(&self) {
        self.kill().await;
    }

    async fn reason(&self) -> Error {
        let inspected = self.client.inspect_container(&self.name, None::<InspectContainerOptions>).await;
        let Some(state) = inspected.ok().and_then(|container| container.state) else {
            return Error::NotStarted("its container is gone".to_owned());
        };
        if state.running == Some(true) {
            return Error::Slow;
        }
        let code = state.exit_code.unwrap_or_default();
        let said = state.error.filter(|error| !error.is_empty()).unwrap_or_default();
        Error::NotStarted(format!("its container ended with status {code} {said}").trim_end().to_owned())
    }
}

fn body(wanted: &Wanted<'_>) -> ContainerCreateBody {
    let spec = wanted.spec;
    let user = format!("{0}:{0}", wanted.user_id);
    let away_ms = wanted.away.as_millis().to_string();
    let env = USUAL_ENV
        .into_iter()
        .chain(spec.env.iter().map(|(name, value)| (name.as_str(), value.as_str())))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let labels =
        [(INSTANCE_LABEL, wanted.shared.instance.as_str()), (SANDBOX_LABEL, spec.sandbox_id.as_str())];
    ContainerCreateBody {
        hostname: Some("sandbox".to_owned()),
        user: Some(user),
        env: Some(env),
        entrypoint: Some(vec![GUEST_PATH.to_owned()]),
        cmd: Some([SOCKET_DIR, &away_ms, "-", "-"].map(str::to_owned).to_vec()),
        image: Some(wanted.image.to_owned()),
        working_dir: Some("/workspace".to_owned()),
        labels: Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        host_config: Some(host_config(wanted)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(wanted: &Wanted<'_>) -> HostConfig {
    let limits = wanted.spec.limits;
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let shared = |name: &str, inside: &str| mount(&wanted.shared.file(name), inside, true);
    let mounts = vec![
        mount(&wanted.spec.workspace_dir, "/workspace", false),
        mount(&wanted.place.run_dir(), SOCKET_DIR, true),
        shared("guest", GUEST_PATH),
        shared("ca-bundle.pem", "/run/herm/ca-bundle.pem"),
        shared("ca.pem", "/run/herm/ca.pem"),
        mount(&wanted.passwd_file, "/etc/passwd", true),
        mount(&wanted.group_file, "/etc/group", true),
    ];
    let tmp = format!("rw,nosuid,nodev,exec,mode=1777,size={TMP_BYTES}");
    HostConfig {
        mounts: Some(mounts),
        tmpfs: Some(HashMap::from([("/tmp".to_owned(), tmp)])),
        shm_size: Some(bytes(SHM_BYTES)),
        network_mode: Some("none".to_owned()),
        readonly_rootfs: Some(true),
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".to_owned()]),
        masked_paths: Some(MASKED.into_iter().chain(MASKED_IN_CONTAINERS).map(str::to_owned).collect()),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        memory: Some(bytes(limits.memory_bytes)),
        memory_swap: Some(bytes(limits.memory_bytes)),
        nano_cpus: Some(i64::from(limits.cpu_millis) * 1_000_000),
        // What runs a container with a kernel of its own takes threads of the host for it.
        pids_limit: (wanted.runtime == Runtime::Default).then_some(i64::from(limits.processes)),
        ulimits: Some(vec![ResourcesUlimits { name: Some("core".to_owned()), soft: Some(0), hard: Some(0) }]),
        runtime: wanted.runtime.name().map(str::to_owned),
        // One that ends by itself, as its server stays away, leaves nothing.
        auto_remove: Some(true),
        log_config: Some(bollard::models::HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), LOG_SIZE.to_owned()),
                ("max-file".to_owned(), "1".to_owned()),
            ])),
        }),
        ..HostConfig::default()
    }
}

fn mount(source: &Path, inside: &str, is_read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.display().to_string()),
        target: Some(inside.to_owned()),
        read_only: Some(is_read_only),
        ..Mount::default()
    }
}
