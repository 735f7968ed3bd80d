"""`python -m services.admin`: the admin room's process."""

from services.runtime.process import start

if __name__ == "__main__":
    start("admin", "services.admin.room:serve")
