//! Creates, watches and removes the container of one sandbox.

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

use super::{Runtime, docker_error, is_status};
use crate::engine::{DEFAULT_ENV, EngineSandbox, GUEST_PATH, MASKED_PATHS, SHM_BYTES, SOCKET_DIR, TMP_BYTES};
use crate::sandbox_dir::SandboxDir;
use crate::shared_files::SharedFiles;
use crate::spec::{Error, Spec};

/// The container label that stores the instance name of the server that started the container.
const INSTANCE_LABEL: &str = "dev.herm.instance";
const SANDBOX_LABEL: &str = "dev.herm.sandbox";
/// Paths that are hidden in containers in addition to `MASKED_PATHS`. Docker masks some of them by default, but a
/// custom list replaces Docker's list, so they must be repeated here. The others describe the machine's hardware.
const MASKED_IN_CONTAINERS: [&str; 5] =
    ["/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/scsi", "/sys"];
/// The maximum time to remove a container. If it takes longer, the removal fails.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(120);
/// The maximum size of a container's log. When it is reached, Docker discards the older content. A small log is enough:
/// it is read only to find out why a guest did not start.
const LOG_SIZE: &str = "64k";

pub(super) fn container_name(instance: &str, sandbox_id: &str) -> String {
    format!("herm-{instance}-{sandbox_id}")
}

/// The parameters from which a container is created.
pub(super) struct ContainerConfig<'a> {
    pub(super) image: &'a str,
    pub(super) runtime: Runtime,
    pub(super) shared_files: &'a SharedFiles,
    pub(super) sandbox_dir: &'a SandboxDir,
    pub(super) spec: &'a Spec,
    pub(super) user_id: u32,
    /// The path of a passwd file that contains the user `user_id`, mounted as `/etc/passwd`.
    pub(super) passwd_file: PathBuf,
    pub(super) group_file: PathBuf,
    pub(super) reconnect_timeout: Duration,
}

/// A handle to a container, which is identified by its name.
pub(super) struct Container {
    client: Client,
    name: Arc<str>,
    /// The state of the task that waits for the container to stop. The first call to `wait_ended` starts this task.
    end_state: watch::Sender<EndState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndState {
    NotWatched,
    Watched,
    Ended,
}

impl Container {
    pub(super) fn new(client: Client, name: String) -> Self {
        Self { client, name: name.into(), end_state: watch::Sender::new(EndState::NotWatched) }
    }

    /// Creates and starts the container. If a container with the same name exists, removes it first.
    pub(super) async fn start(&self, config: &ContainerConfig<'_>) -> Result<(), Error> {
        self.remove().await?;
        let options = CreateContainerOptionsBuilder::new().name(&self.name).build();
        let body = container_body(config);
        self.client.create_container(Some(options), body).await.map_err(|error| {
            if is_status(&error, 404) {
                let reason = "the image does not exist on this machine".to_owned();
                return Error::NoImage { image: config.image.to_owned(), reason };
            }
            docker_error(&error)
        })?;
        if let Err(error) = self.client.start_container(&self.name, None).await {
            // Ignore a failed removal: the caller needs the error of the failed start.
            let _ = self.remove().await;
            return Err(docker_error(&error));
        }
        Ok(())
    }

    /// Kills the container's processes, removes the container and waits until it is gone.
    async fn remove(&self) -> Result<(), Error> {
        let removal = async {
            loop {
                let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
                match self.client.remove_container(&self.name, Some(options)).await {
                    Err(error) if is_status(&error, 404) => return Ok(()),
                    // Status 409: the container is already being removed, possibly by the Docker engine itself.
                    Err(error) if is_status(&error, 409) => tokio::time::sleep(REMOVE_POLL_INTERVAL).await,
                    // Status 500: the Docker engine gave up waiting for the container's processes to exit, for example
                    // because there are very many of them.
                    Err(error) if is_status(&error, 500) => {
                        tracing::debug!(container = &*self.name, %error, "failed to remove the container, retrying");
                        tokio::time::sleep(RETRY_INTERVAL).await;
                    }
                    Err(error) => return Err(docker_error(&error)),
                    Ok(()) => {}
                }
            }
        };
        tokio::time::timeout(REMOVE_TIMEOUT, removal).await.unwrap_or(Err(Error::KillTimeout))
    }

    /// Spawns the task that waits for the container to stop, unless it was already spawned.
    fn watch(&self) {
        let is_first = self.end_state.send_if_modified(|end_state| {
            let is_first = *end_state == EndState::NotWatched;
            if is_first {
                *end_state = EndState::Watched;
            }
            is_first
        });
        if !is_first {
            return;
        }
        let (client, name, end_state) = (self.client.clone(), Arc::clone(&self.name), self.end_state.clone());
        tokio::spawn(async move {
            wait_for_end(&client, &name, &end_state).await;
            end_state.send_replace(EndState::Ended);
        });
    }
}

/// The interval between checks of a removal that is in progress.
const REMOVE_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// The delay before a failed request to the Docker engine is retried.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Waits until the container is no longer running. Retries while the Docker engine is unreachable. Returns early when
/// `end_state` has no receiver left.
async fn wait_for_end(client: &Client, name: &str, end_state: &watch::Sender<EndState>) {
    loop {
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        match client.wait_container(name, Some(options)).next().await {
            Some(Ok(_) | Err(bollard::errors::Error::DockerContainerWaitError { .. })) => return,
            Some(Err(error)) if is_status(&error, 404) => return,
            _ => {}
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_INTERVAL) => {}
            () = end_state.closed() => return,
        }
    }
}

#[async_trait]
impl EngineSandbox for Container {
    fn guest_connected(&self, _stream: &UnixStream) {}

    async fn kill(&self) {
        if let Err(error) = self.remove().await {
            tracing::warn!(
                container = &*self.name,
                error = &error as &dyn std::error::Error,
                "failed to remove the container"
            );
        }
    }

    async fn wait_ended(&self) {
        let mut end_state = self.end_state.subscribe();
        self.watch();
        // Cannot fail: `self` owns the sender, so the channel stays open.
        let _ = end_state.wait_for(|end_state| *end_state == EndState::Ended).await;
    }

    async fn may_run(&self) -> bool {
        match self.client.inspect_container(&self.name, None::<InspectContainerOptions>).await {
            Ok(container) => container.state.and_then(|state| state.running) == Some(true),
            // Only status 404 proves that the container is gone. After any other error, it may still be running.
            Err(error) => !is_status(&error, 404),
        }
    }

    async fn clean_up(&self) {
        self.kill().await;
    }

    async fn start_failure(&self) -> Error {
        let inspected = self.client.inspect_container(&self.name, None::<InspectContainerOptions>).await;
        let Some(state) = inspected.ok().and_then(|container| container.state) else {
            return Error::NotStarted("the container no longer exists".to_owned());
        };
        if state.running == Some(true) {
            return Error::StartTimeout;
        }
        let code = state.exit_code.unwrap_or_default();
        let message = state.error.filter(|error| !error.is_empty()).unwrap_or_default();
        Error::NotStarted(format!("the container exited with status {code} {message}").trim_end().to_owned())
    }
}

fn container_body(config: &ContainerConfig<'_>) -> ContainerCreateBody {
    let spec = config.spec;
    let user = format!("{0}:{0}", config.user_id);
    let reconnect_timeout_ms = config.reconnect_timeout.as_millis().to_string();
    let env = DEFAULT_ENV
        .into_iter()
        .chain(spec.env.iter().map(|(name, value)| (name.as_str(), value.as_str())))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let labels =
        [(INSTANCE_LABEL, config.shared_files.instance.as_str()), (SANDBOX_LABEL, spec.sandbox_id.as_str())];
    ContainerCreateBody {
        hostname: Some("sandbox".to_owned()),
        user: Some(user),
        env: Some(env),
        entrypoint: Some(vec![GUEST_PATH.to_owned()]),
        cmd: Some([SOCKET_DIR, &reconnect_timeout_ms, "-", "-"].map(str::to_owned).to_vec()),
        image: Some(config.image.to_owned()),
        working_dir: Some("/workspace".to_owned()),
        labels: Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        host_config: Some(host_config(config)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(config: &ContainerConfig<'_>) -> HostConfig {
    let limits = config.spec.limits;
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let shared_mount = |name: &str, inside: &str| mount(&config.shared_files.file(name), inside, true);
    let mounts = vec![
        mount(&config.spec.workspace_dir, "/workspace", false),
        mount(&config.sandbox_dir.run_dir(), SOCKET_DIR, true),
        shared_mount("guest", GUEST_PATH),
        shared_mount("ca-bundle.pem", "/run/herm/ca-bundle.pem"),
        shared_mount("ca.pem", "/run/herm/ca.pem"),
        mount(&config.passwd_file, "/etc/passwd", true),
        mount(&config.group_file, "/etc/group", true),
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
        masked_paths: Some(MASKED_PATHS.into_iter().chain(MASKED_IN_CONTAINERS).map(str::to_owned).collect()),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        memory: Some(bytes(limits.memory_bytes)),
        memory_swap: Some(bytes(limits.memory_bytes)),
        nano_cpus: Some(i64::from(limits.cpu_millis) * 1_000_000),
        // Set no process limit for gVisor: it would also count the host threads that gVisor needs for its own kernel.
        pids_limit: (config.runtime == Runtime::Default).then_some(i64::from(limits.processes)),
        ulimits: Some(vec![ResourcesUlimits { name: Some("core".to_owned()), soft: Some(0), hard: Some(0) }]),
        runtime: config.runtime.name().map(str::to_owned),
        // Let the Docker engine remove the container when the guest exits. The guest exits when it can no longer reach
        // a server, so there may be no server left to remove the container.
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
