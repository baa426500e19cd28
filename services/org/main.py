"""The org service."""

from services.org import api, reactions, workers
from shared.service import Service

service = Service("org", api.router, reactions, workers)

if __name__ == "__main__":
    service.run()
