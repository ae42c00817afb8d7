"""Who is here: log in, log out."""

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask_login import UserMixin, login_user, logout_user
from werkzeug.security import check_password_hash

from . import database
from .extensions import login_manager

blueprint = Blueprint("accounts", __name__)


class User(UserMixin):
    def __init__(self, row):
        self.id = row["id"]  # an int; Flask-Login's get_id() makes a str of it
        self.name = row["name"]


@login_manager.user_loader
def load_user(user_id):
    row = database.connection().execute("SELECT * FROM users WHERE id = ?", (user_id,)).fetchone()
    return row and User(row)


@blueprint.route("/login", methods=["GET", "POST"])
def login():
    if request.method == "POST":
        name, password = request.form["name"], request.form["password"]
        row = database.connection().execute("SELECT * FROM users WHERE name = ?", (name,)).fetchone()
        if row and check_password_hash(row["password"], password):
            login_user(User(row))
            return redirect(url_for("pages.home"))
        flash("The name or the password is wrong.")
    return render_template("login.html")


@blueprint.post("/logout")
def logout():
    logout_user()
    return redirect(url_for("accounts.login"))
