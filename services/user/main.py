"""The user service."""

from services.user import api, workers
from shared.service import Service

service = Service("user", api.router, workers)

if __name__ == "__main__":
    service.run()
