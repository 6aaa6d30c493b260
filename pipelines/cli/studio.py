"""`studio`: a web page on this machine for one model."""

import logging

from objgan.generation import ObjGAN
from pipelines.cli import options as cli
from pipelines.models.champion import model_named
from pipelines.models.generate import local_model
from pipelines.redaction import place_of
from pipelines.storage.storage import RUNS
from pipelines.studio.app import PictureService, build_app
from pipelines.studio.server import address_of, is_reachable, listen, new_server
from pipelines.tracking.tracker import tracking_uri

logger = logging.getLogger(__name__)


def studio(options: cli.StudioOptions) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        InputError: the port is in use, an unknown host, or no such model.
    """
    with listen(options.host, options.port) as listening:
        uri = tracking_uri(RUNS)
        named = model_named(options.model, uri)
        with local_model(named, uri) as folder:
            model = ObjGAN.load(folder)
        if is_reachable(listening):
            logger.warning(f"--host {options.host}: other machines can use the page, which asks for no password")
        shown = place_of(str(named))
        logger.info(f"studio: {address_of(listening)} draws with {shown}; Ctrl-C ends it")
        try:
            new_server(build_app(PictureService(model, shown), options.host)).run(sockets=[listening])
        except KeyboardInterrupt:
            logger.info("studio ended")
