"""The provisioning service."""

from services.provisioning import api, reactions, workers
from shared.service import Service

service = Service("provisioning", api.router, reactions, workers)

if __name__ == "__main__":
    service.run()
