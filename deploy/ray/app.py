"""The applications for a Serve config file: `deploy.ray.app:front` once, `deploy.ray.app:model` for each archive."""

# Without postponed annotations: Ray reads the type of a builder's arguments.
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application

from deploy.ray.front import Front
from deploy.ray.model import NAME, Model
from serve.archive import identity
from vit_core.archive import Archive, opened
from vit_core.machine import threads_per_worker
from vit_core.way import is_brief

ROOT = Path(__file__).resolve().parent.parent.parent  # relative paths start here, on each node
QUEUE = 200  # requests that wait at one front for one model, as TorchServe's job_queue_size in config.properties
# Seconds that a replica has to answer its requests before it ends. The longest batch takes the archive's response timeout.
DRAIN_SECONDS = 120
# Per cent of the replicas, one at least, that a new version starts before it stops any of the old one's: so nobody waits, and a
# version that does not start takes nobody's place. The cluster needs the cores for them.
SURGE = 25
ATTEMPTS = 2  # to start a replica, before the version counts as failed
CHECK_SECONDS = 5  # between two health checks of a replica


class Sizes(BaseModel):
    """Sizes in bytes, as in config.properties."""

    model_config = ConfigDict(extra="forbid")  # a typo in a name must not go unnoticed

    max_request_size: int = Field(20_000_000, ge=1)
    max_response_size: int = Field(4_000_000, ge=1)


class FrontArgs(Sizes):
    token_file: str | None  # None admits everybody: for a cluster behind a gateway that checks keys
    replicas: int = Field(1, ge=1)  # each on a node of its own


class ModelArgs(Sizes):
    archive: str  # a .mar file, at the same path on each node
    cpus: int | None = Field(None, ge=1)  # cores of a replica, which are the threads of its model; None: see `_cpus`
    gpus: float = Field(0, ge=0)  # 0.33: three replicas share a GPU, of which one decodes while it works for another
    min_replicas: int | None = Field(None, ge=1)  # None: as many as the archive has workers
    max_replicas: int | None = Field(None, ge=1)  # None: as many as min_replicas


def _deployment(cls: type, name: str, **options) -> serve.Deployment:
    # Not as a decorator: Ray pickles a class that its module has by reference, and others with all that they name.
    return serve.deployment(
        name=name,
        max_queued_requests=QUEUE,
        graceful_shutdown_timeout_s=DRAIN_SECONDS,
        health_check_period_s=CHECK_SECONDS,
        max_surge_percent=SURGE,
        max_constructor_retry_count=ATTEMPTS,
        **options,
    )(cls)


def front(args: FrontArgs) -> Application:
    return _deployment(
        Front,
        "Front",
        num_replicas=args.replicas,
        max_replicas_per_node=1 if args.replicas > 1 else None,  # a node that is lost takes one of them with it
        max_ongoing_requests=QUEUE,
        ray_actor_options={"num_cpus": 0},  # it mostly waits, and must not take cores from a model
    ).bind(args.token_file and str(ROOT / args.token_file), args.max_request_size)


def model(args: ModelArgs) -> Application:
    """Raises ServeError or ArchiveError for a file that is no archive of this project, before any replica starts."""
    path = ROOT / args.archive
    identity(path)
    with opened(path) as archive:
        pass
    batch, cpus = archive.serving.batch_size, args.cpus or _cpus(archive)
    least = args.min_replicas or archive.serving.min_workers
    most = max(least, args.max_replicas or 0)
    # A replica that always has a full batch is as fast as it can be.
    scaling = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": batch}
    return _deployment(
        Model,
        NAME,
        **({"autoscaling_config": scaling} if most > least else {"num_replicas": least}),
        max_ongoing_requests=2 * batch,  # one batch in the model, and the next one ready
        ray_actor_options={"num_cpus": cpus, "num_gpus": args.gpus},
    ).bind(str(path), cpus, args.max_request_size, args.max_response_size)


def _cpus(archive: Archive) -> int:
    """Returns the cores for a worker of the archive on this machine: one if one thread runs the model, else a share of all."""
    return 1 if is_brief(archive.settings) else threads_per_worker(archive.serving.min_workers)
