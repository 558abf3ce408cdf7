"""Images that are built where no container registry answers."""
