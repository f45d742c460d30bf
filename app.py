from og_project.serving.api import create_app

app = create_app()
