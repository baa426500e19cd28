"""The billing service."""

from services.billing import api, reactions, workers
from shared.service import Service

service = Service("billing", api.router, reactions, workers)

if __name__ == "__main__":
    service.run()
